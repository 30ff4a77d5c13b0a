// Gradients of activations, softmax and norms, one row at a time.
// SPDX-License-Identifier: Apache-2.0
#include "kernels/isa/math.h"
#include "kernels/isa/row.h"

namespace hone::kernels::HONE_ISA_NAMESPACE {
namespace {

// f(i, load, store) for each vector of a row: load(p) reads p[i …], zeros behind the row's end.
template <typename Function>
HWY_INLINE void each_vector(std::size_t size, Function f) {
  const F32 d;
  std::size_t i = 0;
  for (; i + kLanes <= size; i += kLanes) {
    f([&](std::span<const float> from) { return hn::LoadU(d, from.data() + i); },
      [&](VecF32 value, std::span<float> to) { hn::StoreU(value, d, to.data() + i); });
  }
  if (i < size) {
    const std::size_t rest = size - i;
    f([&](std::span<const float> from) { return load_first(from.data() + i, rest); },
      [&](VecF32 value, std::span<float> to) { store_first(value, to.data() + i, rest); });
  }
}

// 1 / (1 + e^-a)
HWY_INLINE VecF32 sigmoid(VecF32 a) {
  return hn::Div(splat(1.0f), hn::Add(splat(1.0f), exp(hn::Neg(a))));
}

// s (1 + x (1 - s))
HWY_INLINE VecF32 silu_slope(VecF32 x) {
  const VecF32 s = sigmoid(x);
  return hn::Mul(s, fused(x, hn::Sub(splat(1.0f), s), splat(1.0f)));
}

// gelu_tanh is x s with s = sigmoid(u), u = linear x + cubic x^3; so its slope is
// s (1 + x (1 - s) u'). Beyond |x| = 20 it is 0 or 1 in f32, and the cube may not overflow.
HWY_INLINE VecF32 gelu_tanh_slope(VecF32 x) {
  constexpr float kLinear = 1.5957691216057308f;  // 2 sqrt(2/pi)
  constexpr float kCubic = 0.07135481627159958f;  // 0.044715 * 2 sqrt(2/pi)
  x = at_most(at_least(x, -20.0f), 20.0f);
  const VecF32 square = hn::Mul(x, x);
  const VecF32 s = sigmoid(hn::Mul(x, fused(square, splat(kCubic), splat(kLinear))));
  const VecF32 inner = fused(square, splat(3.0f * kCubic), splat(kLinear));
  return hn::Mul(s, fused(hn::Mul(x, inner), hn::Sub(splat(1.0f), s), splat(1.0f)));
}

}  // namespace

void silu_gradient(std::span<const float> x, std::span<const float> dy, std::span<float> out) {
  each_vector(out.size(), [&](auto load, auto store)
                              HWY_ATTR { store(hn::Mul(load(dy), silu_slope(load(x))), out); });
}

void gelu_tanh_gradient(std::span<const float> x, std::span<const float> dy, std::span<float> out) {
  each_vector(out.size(), [&](auto load, auto store) HWY_ATTR {
    store(hn::Mul(load(dy), gelu_tanh_slope(load(x))), out);
  });
}

void tanh_cap_gradient(std::span<const float> y, std::span<const float> dy, float cap,
                       std::span<float> out) {
  const VecF32 inverse = splat(1.0f / cap);
  each_vector(out.size(), [&](auto load, auto store) HWY_ATTR {
    const VecF32 t = hn::Mul(load(y), inverse);
    store(hn::Mul(load(dy), hn::NegMulAdd(t, t, splat(1.0f))), out);
  });
}

void softmax_gradient(std::span<const float> y, std::span<const float> dy, std::span<float> out) {
  VecF32 sum = splat(0.0f);
  each_vector(out.size(),
              [&](auto load, auto) HWY_ATTR { sum = hn::MulAdd(load(y), load(dy), sum); });
  const VecF32 dot = splat(sum_of_lanes(sum));
  each_vector(out.size(), [&](auto load, auto store)
                              HWY_ATTR { store(hn::Mul(load(y), hn::Sub(load(dy), dot)), out); });
}

RowMoments row_moments(std::span<const float> x, bool centered, float epsilon) {
  return moments_of_row(x.data(), x.size(), centered, epsilon);
}

void rms_norm_gradient(std::span<const float> x, std::span<const float> weight,
                       std::span<const float> dy, float epsilon, std::span<float> out) {
  const std::size_t size = out.size();
  const float inverse = inverse_rms(x.data(), size, epsilon);
  VecF32 sum = splat(0.0f);
  each_vector(size, [&](auto load, auto) HWY_ATTR {
    sum = hn::MulAdd(hn::Mul(load(dy), load(weight)), load(x), sum);
  });
  const float mean = sum_of_lanes(sum) / static_cast<float>(size);
  const VecF32 factor = splat(inverse);
  const VecF32 back = splat(inverse * inverse * inverse * mean);
  each_vector(size, [&](auto load, auto store) HWY_ATTR {
    const VecF32 along = hn::Mul(hn::Mul(load(dy), load(weight)), factor);
    store(hn::NegMulAdd(load(x), back, along), out);
  });
}

void layer_norm_gradient(std::span<const float> x, std::span<const float> weight,
                         std::span<const float> dy, float epsilon, std::span<float> out) {
  const std::size_t size = out.size();
  const RowMoments row = moments_of_row(x.data(), size, true, epsilon);
  const VecF32 center = splat(row.mean);
  const VecF32 factor = splat(row.inverse);
  VecF32 sum = splat(0.0f);
  VecF32 dot = sum;
  each_vector(size, [&](auto load, auto) HWY_ATTR {
    const VecF32 g = hn::Mul(load(dy), load(weight));  // 0 behind the row's end
    sum = hn::Add(sum, g);
    dot = hn::MulAdd(g, hn::Mul(hn::Sub(load(x), center), factor), dot);
  });
  const VecF32 mean = splat(sum_of_lanes(sum) / static_cast<float>(size));
  const VecF32 along = splat(sum_of_lanes(dot) / static_cast<float>(size));
  each_vector(size, [&](auto load, auto store) HWY_ATTR {
    const VecF32 g = hn::Sub(hn::Mul(load(dy), load(weight)), mean);
    const VecF32 normalized = hn::Mul(hn::Sub(load(x), center), factor);
    store(hn::Mul(factor, hn::NegMulAdd(normalized, along, g)), out);
  });
}

void add_normalized(std::span<const float> x, RowMoments row, std::span<const float> dy,
                    std::span<float> sum) {
  const VecF32 center = splat(row.mean);
  const VecF32 factor = splat(row.inverse);
  each_vector(sum.size(), [&](auto load, auto store) HWY_ATTR {
    const VecF32 normalized = hn::Mul(hn::Sub(load(x), center), factor);
    store(hn::MulAdd(normalized, load(dy), load(sum)), sum);
  });
}

}  // namespace hone::kernels::HONE_ISA_NAMESPACE

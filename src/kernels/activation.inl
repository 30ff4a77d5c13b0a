// Activation functions, alone and multiplied with the "up" half of a gated feed-forward layer.
// SPDX-License-Identifier: Apache-2.0
#include "kernels/isa/math.h"

namespace hone::kernels::HONE_ISA_NAMESPACE {
namespace {

// out[i] = op(x[i])
template <typename Op>
HWY_INLINE void map(std::span<const float> x, std::span<float> out, Op op) {
  const F32 d;
  const std::size_t size = out.size();
  std::size_t i = 0;
  for (; i + kLanes <= size; i += kLanes) {
    hn::StoreU(op(hn::LoadU(d, x.data() + i)), d, out.data() + i);
  }
  if (i < size) store_first(op(load_first(x.data() + i, size - i)), out.data() + i, size - i);
}

// out[i] = op(gate[i]) * up[i]
template <typename Op>
HWY_INLINE void map_multiply(std::span<const float> gate, std::span<const float> up,
                             std::span<float> out, Op op) {
  const F32 d;
  const std::size_t size = out.size();
  std::size_t i = 0;
  for (; i + kLanes <= size; i += kLanes) {
    const VecF32 value = op(hn::LoadU(d, gate.data() + i));
    hn::StoreU(hn::Mul(value, hn::LoadU(d, up.data() + i)), d, out.data() + i);
  }
  if (i < size) {
    const std::size_t rest = size - i;
    const VecF32 value = op(load_first(gate.data() + i, rest));
    store_first(hn::Mul(value, load_first(up.data() + i, rest)), out.data() + i, rest);
  }
}

// x * sigmoid(a), a <= 88: below it the quotient is 0 (x finite).
HWY_INLINE VecF32 times_sigmoid(VecF32 x, VecF32 a) {
  return hn::Div(x, hn::Add(splat(1.0f), exp(hn::Neg(a))));
}

HWY_INLINE VecF32 silu_of(VecF32 x) { return times_sigmoid(x, x); }

// 0.5 x (1 + tanh(u)) = x sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3): one exponential.
HWY_INLINE VecF32 gelu_tanh_of(VecF32 x) {
  constexpr float kLinear = 1.5957691216057308f;  // 2 sqrt(2/pi)
  constexpr float kCubic = 0.07135481627159958f;  // 0.044715 * 2 sqrt(2/pi)
  const VecF32 square = hn::Mul(x, x);
  return times_sigmoid(x, hn::Mul(x, fused(square, splat(kCubic), splat(kLinear))));
}

// x Phi(x): 0.5 x erfc(|x| / sqrt 2) below 0, x minus that above.
HWY_INLINE VecF32 gelu_erf_of(VecF32 x) {
  const VecF32 tail = normal_tails(hn::Abs(x));
  const VecF32 half = hn::Mul(hn::Mul(x, splat(0.5f)), tail);
  return hn::IfThenElse(hn::Lt(x, splat(0.0f)), half, hn::Sub(x, half));
}

}  // namespace

void silu(std::span<const float> x, std::span<float> out) {
  map(x, out, [](VecF32 v) { return silu_of(v); });
}

void silu_mul(std::span<const float> gate, std::span<const float> up, std::span<float> out) {
  map_multiply(gate, up, out, [](VecF32 v) { return silu_of(v); });
}

void gelu_tanh(std::span<const float> x, std::span<float> out) {
  map(x, out, [](VecF32 v) { return gelu_tanh_of(v); });
}

void gelu_tanh_mul(std::span<const float> gate, std::span<const float> up, std::span<float> out) {
  map_multiply(gate, up, out, [](VecF32 v) { return gelu_tanh_of(v); });
}

void gelu_erf(std::span<const float> x, std::span<float> out) {
  map(x, out, [](VecF32 v) { return gelu_erf_of(v); });
}

void gelu_erf_mul(std::span<const float> gate, std::span<const float> up, std::span<float> out) {
  map_multiply(gate, up, out, [](VecF32 v) { return gelu_erf_of(v); });
}

void relu(std::span<const float> x, std::span<float> out) {
  map(x, out, [](VecF32 v) { return at_least(v, 0.0f); });
}

void tanh_cap(std::span<const float> x, float cap, std::span<float> out) {
  const VecF32 limit = splat(cap);
  map(x, out, [limit](VecF32 v) { return hn::Mul(limit, tanh(hn::Div(v, limit))); });
}

}  // namespace hone::kernels::HONE_ISA_NAMESPACE

// One step of SGD, Adam (state of 32 and of 8 bits) and Lion over a run of weights; see update.h.
// SPDX-License-Identifier: Apache-2.0
#include <bit>

#include "kernels/isa/math.h"
#include "kernels/isa/row.h"
#include "kernels/update.h"

namespace hone::kernels::HONE_ISA_NAMESPACE {
namespace {

static_assert(kUpdateBlock % kLanes == 0);

// Products and sums apart: one rounding each, so that the bits are the same without FMA.
HWY_INLINE VecF32 times_plus(VecF32 a, VecF32 b, VecF32 c) { return hn::Add(hn::Mul(a, b), c); }

// step(load, store, i) for each vector of [0, size); load and store see the rest through a mask.
template <typename Step>
HWY_INLINE void for_each_vector(std::size_t size, Step step) {
  const F32 d;
  std::size_t i = 0;
  for (; i + kLanes <= size; i += kLanes) {
    step([d](const float* from) { return hn::LoadU(d, from); },
         [d](VecF32 value, float* to) { hn::StoreU(value, d, to); }, i);
  }
  if (i < size) {
    const std::size_t rest = size - i;
    step([rest](const float* from) { return load_first(from, rest); },
         [rest](VecF32 value, float* to) { store_first(value, to, rest); }, i);
  }
}

// Moments and weights after one step of Adam.
struct AdamVectors {
  VecF32 weight, first, second;
};

struct AdamConstants {
  VecF32 scale, rate, keep, beta1, rest1, beta2, rest2, root, epsilon;
  explicit AdamConstants(const AdamTask& task)
      : scale(splat(task.run.gradient_scale)),
        rate(splat(task.run.rate)),
        keep(splat(task.run.keep)),
        beta1(splat(task.beta1)),
        rest1(splat(task.one_minus_beta1)),
        beta2(splat(task.beta2)),
        rest2(splat(task.one_minus_beta2)),
        root(splat(task.root_scale)),
        epsilon(splat(task.epsilon)) {}

  HWY_INLINE AdamVectors step(VecF32 weight, VecF32 gradient, VecF32 first, VecF32 second) const {
    const VecF32 g = hn::Mul(gradient, scale);
    first = hn::Add(hn::Mul(first, beta1), hn::Mul(g, rest1));
    second = hn::Add(hn::Mul(second, beta2), hn::Mul(hn::Mul(g, g), rest2));
    const VecF32 root_of = times_plus(hn::Sqrt(second), root, epsilon);
    const VecF32 change = hn::Mul(rate, hn::Div(first, root_of));
    return {hn::Sub(hn::Mul(weight, keep), change), first, second};
  }
};

// The 8-bit maps. Levels: 127 magnitudes of m, 255 of v.
struct CodeMap {
  float offset;  // c of the dynamic map
  std::int32_t levels;
};
constexpr CodeMap kFirstMap{1.0f / 240.0f, 127};
constexpr CodeMap kSecondMap{1.0f / 61680.0f, 255};
constexpr int kCodeShift = 19;  // 23 - 19: 16 codes an octave

template <bool kLinear>
HWY_INLINE VecF32 decode(VecI32 code, const CodeMap& map, bool squared) {
  const F32 d;
  if constexpr (kLinear) {
    const VecF32 x = hn::Mul(hn::ConvertTo(d, code), splat(1.0f / static_cast<float>(map.levels)));
    return squared ? hn::Mul(x, x) : x;
  } else {
    const I32 di;
    const VecI32 bits = hn::Add(hn::ShiftLeft<kCodeShift>(code),
                                hn::Set(di, std::bit_cast<std::int32_t>(map.offset)));
    return hn::Sub(hn::BitCast(d, bits), splat(map.offset));
  }
}

// x in [0, 1]; dither in [0, 2^16), half of that to round to nearest.
template <bool kLinear>
HWY_INLINE VecI32 encode(VecF32 x, VecI32 dither, const CodeMap& map, bool squared) {
  const I32 di;
  VecI32 code;
  if constexpr (kLinear) {
    const VecF32 y = hn::Mul(squared ? hn::Sqrt(x) : x, splat(static_cast<float>(map.levels)));
    const VecF32 lift = hn::Mul(hn::ConvertTo(F32(), dither), splat(0x1p-16f));
    code = hn::ConvertTo(di, hn::Add(y, lift));  // towards zero
  } else {
    const VecI32 bits = hn::BitCast(di, hn::Add(x, splat(map.offset)));
    const VecI32 distance = hn::Sub(bits, hn::Set(di, std::bit_cast<std::int32_t>(map.offset)));
    code = hn::ShiftRight<kCodeShift>(hn::Add(distance, hn::ShiftLeft<kCodeShift - 16>(dither)));
  }
  return hn::Min(code, hn::Set(di, map.levels));
}

// 32 bits that look random: multiply and shift, after the finalizers of "lowbias32" kind.
HWY_INLINE hn::Vec<U32> hash(VecF32 weight, VecF32 gradient, std::uint32_t step) {
  const U32 d;
  auto h = hn::Add(hn::Mul(hn::BitCast(d, gradient), hn::Set(d, 0x9E3779B1u)),
                   hn::Mul(hn::BitCast(d, weight), hn::Set(d, 0x85EBCA77u)));
  h = hn::Add(h, hn::Set(d, step * 0xC2B2AE3Du));
  h = hn::Xor(h, hn::ShiftRight<16>(h));
  h = hn::Mul(h, hn::Set(d, 0x7FEB352Du));
  h = hn::Xor(h, hn::ShiftRight<15>(h));
  h = hn::Mul(h, hn::Set(d, 0x846CA68Bu));
  return hn::Xor(h, hn::ShiftRight<16>(h));
}

// Below it a block's moments become zeros: 1 / scale would overflow.
constexpr float kSmallestScale = 0x1p-120f;

template <bool kLinear>
HWY_INLINE void adam8_block(const Adam8Task& task, const AdamConstants& constants, float* weights,
                            const float* gradient, std::size_t size, Adam8Block& block) {
  const F32 d;
  const I32 di;
  const hn::Rebind<std::int8_t, F32> d8;
  const hn::Rebind<std::uint8_t, F32> du8;
  HWY_ALIGN float first[kUpdateBlock];
  HWY_ALIGN float second[kUpdateBlock];
  const VecF32 first_scale = splat(block.first_scale);
  const VecF32 second_scale = splat(block.second_scale);
  const auto sign_bit = hn::Set(di, static_cast<std::int32_t>(0x80000000u));
  VecF32 first_top = hn::Zero(d), second_top = hn::Zero(d);
  for_each_vector(size, [&](auto load, auto store, std::size_t i) {
    const VecI32 code = hn::PromoteTo(di, hn::LoadU(d8, block.first + i));
    const VecF32 magnitude = hn::Mul(decode<kLinear>(hn::Abs(code), kFirstMap, false), first_scale);
    const VecF32 m = hn::BitCast(d, hn::Or(hn::BitCast(di, magnitude), hn::And(code, sign_bit)));
    const VecI32 code2 = hn::PromoteTo(di, hn::LoadU(du8, block.second + i));
    const VecF32 v = hn::Mul(decode<kLinear>(code2, kSecondMap, true), second_scale);
    const AdamVectors next = constants.step(load(weights + i), load(gradient + i), m, v);
    store(next.weight, weights + i);
    hn::Store(next.first, d, first + i);
    hn::Store(next.second, d, second + i);
    first_top = hn::Max(first_top, hn::Abs(next.first));
    second_top = hn::Max(second_top, next.second);
  });
  const float top1 = max_of_lanes(first_top);
  const float top2 = max_of_lanes(second_top);
  const VecF32 inverse1 = splat(top1 < kSmallestScale ? 0.0f : 1.0f / top1);
  const VecF32 inverse2 = splat(top2 < kSmallestScale ? 0.0f : 1.0f / top2);
  block.first_scale = top1 < kSmallestScale ? 0.0f : top1;
  block.second_scale = top2 < kSmallestScale ? 0.0f : top2;
  const VecI32 half = hn::Set(di, 1 << 15);
  const VecI32 low_bits = hn::Set(di, 0xFFFF);
  for_each_vector(size, [&](auto load, auto, std::size_t i) {
    VecI32 dither1 = half, dither2 = half;
    if (task.stochastic) {
      const auto h = hash(load(weights + i), load(gradient + i), task.step);
      dither1 = hn::BitCast(di, hn::ShiftRight<16>(h));
      dither2 = hn::And(hn::BitCast(di, h), low_bits);
    }
    const VecF32 m = hn::Mul(hn::Load(d, first + i), inverse1);
    const VecI32 code = encode<kLinear>(hn::Abs(m), dither1, kFirstMap, false);
    const auto negative = hn::Lt(hn::BitCast(di, m), hn::Zero(di));
    hn::StoreU(hn::DemoteTo(d8, hn::IfThenElse(negative, hn::Neg(code), code)), d8,
               block.first + i);
    const VecF32 v = hn::Mul(hn::Load(d, second + i), inverse2);
    const VecI32 least =
        hn::IfThenElse(hn::RebindMask(di, hn::Gt(v, hn::Zero(d))), hn::Set(di, 1), hn::Zero(di));
    const VecI32 code2 = hn::Max(encode<kLinear>(v, dither2, kSecondMap, true), least);
    hn::StoreU(hn::DemoteTo(du8, code2), du8, block.second + i);
  });
}

template <bool kLinear>
HWY_INLINE void adam8(const Adam8Task& task) {
  const UpdateRun& run = task.adam.run;
  const AdamConstants constants(task.adam);
  const std::size_t size = run.weights.size();
  auto* blocks = reinterpret_cast<Adam8Block*>(task.state.data());
  for (std::size_t begin = 0; begin < size; begin += kUpdateBlock) {
    const std::size_t count = size - begin < kUpdateBlock ? size - begin : kUpdateBlock;
    adam8_block<kLinear>(task, constants, run.weights.data() + begin, run.gradient.data() + begin,
                         count, blocks[begin / kUpdateBlock]);
  }
}

}  // namespace

void momentum_step(const MomentumTask& task) {
  const UpdateRun& run = task.run;
  const VecF32 scale = splat(run.gradient_scale), rate = splat(run.rate), keep = splat(run.keep);
  const VecF32 momentum = splat(task.momentum), decay = splat(task.coupled_decay);
  float* weights = run.weights.data();
  const float* gradient = run.gradient.data();
  float* state = task.state.data();
  const bool stateless = task.state.empty();
  for_each_vector(run.weights.size(), [&](auto load, auto store, std::size_t i) {
    const VecF32 w = load(weights + i);
    const VecF32 g = times_plus(w, decay, hn::Mul(load(gradient + i), scale));
    VecF32 change = g;
    if (!stateless) {
      const VecF32 b = times_plus(momentum, load(state + i), g);
      store(b, state + i);
      change = task.nesterov ? times_plus(momentum, b, g) : b;
    }
    store(hn::Sub(hn::Mul(w, keep), hn::Mul(rate, change)), weights + i);
  });
}

void sign_step(const SignTask& task) {
  const UpdateRun& run = task.run;
  const VecF32 scale = splat(run.gradient_scale), rate = splat(run.rate), keep = splat(run.keep);
  const VecF32 beta1 = splat(task.beta1), rest1 = splat(task.one_minus_beta1);
  const VecF32 beta2 = splat(task.beta2), rest2 = splat(task.one_minus_beta2);
  const VecF32 zero = hn::Zero(F32());
  float* weights = run.weights.data();
  const float* gradient = run.gradient.data();
  float* state = task.state.data();
  for_each_vector(run.weights.size(), [&](auto load, auto store, std::size_t i) {
    const VecF32 m = load(state + i);
    const VecF32 g = hn::Mul(load(gradient + i), scale);
    const VecF32 u = hn::Add(hn::Mul(m, beta1), hn::Mul(g, rest1));
    const VecF32 change = hn::IfThenElse(hn::Eq(u, zero), zero, hn::CopySign(rate, u));
    store(hn::Sub(hn::Mul(load(weights + i), keep), change), weights + i);
    store(hn::Add(hn::Mul(m, beta2), hn::Mul(g, rest2)), state + i);
  });
}

void root_scaled(std::span<const float> gradient, float gradient_scale,
                 std::span<const float> moments, float factor, float least, std::span<float> out) {
  const VecF32 scale = splat(gradient_scale), share = splat(factor), floor = splat(least);
  for_each_vector(out.size(), [&](auto load, auto store, std::size_t i) {
    const VecF32 square = hn::Max(hn::Mul(load(moments.data() + i), share), floor);
    store(hn::Div(hn::Mul(load(gradient.data() + i), scale), hn::Sqrt(square)), out.data() + i);
  });
}

void adam_step(const AdamTask& task) {
  const UpdateRun& run = task.run;
  const AdamConstants constants(task);
  const std::size_t size = run.weights.size();
  for (std::size_t begin = 0; begin < size; begin += kUpdateBlock) {
    const std::size_t count = size - begin < kUpdateBlock ? size - begin : kUpdateBlock;
    float* weights = run.weights.data() + begin;
    const float* gradient = run.gradient.data() + begin;
    float* first = task.state.data() + 2 * begin;
    float* second = first + kUpdateBlock;
    for_each_vector(count, [&](auto load, auto store, std::size_t i) {
      const AdamVectors next =
          constants.step(load(weights + i), load(gradient + i), load(first + i), load(second + i));
      store(next.weight, weights + i);
      store(next.first, first + i);
      store(next.second, second + i);
    });
  }
}

void adam8_step(const Adam8Task& task) {
  if (task.linear) {
    adam8<true>(task);
  } else {
    adam8<false>(task);
  }
}

}  // namespace hone::kernels::HONE_ISA_NAMESPACE

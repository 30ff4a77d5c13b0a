// Rows from f32 to f16 and bf16 and back, rounded to nearest with ties to even (base/half.h).
// SPDX-License-Identifier: Apache-2.0
#include "base/half.h"

namespace hone::kernels::HONE_ISA_NAMESPACE {
namespace {

#if defined(HONE_ISA_SCALAR)

template <typename From, typename To, typename Op>
void convert(std::span<const From> x, std::span<To> out, Op op) {
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = op(x[i]);
}

#else

using U16 = hn::Rebind<std::uint16_t, F32>;
using VecU16 = hn::Vec<U16>;

HWY_INLINE VecU16 to_f16(VecF32 v) {
  const hn::Rebind<hwy::float16_t, F32> dh;
  return hn::BitCast(U16(), hn::DemoteTo(dh, v));
}

HWY_INLINE VecF32 from_f16(VecU16 v) {
  const hn::Rebind<hwy::float16_t, F32> dh;
  return hn::PromoteTo(F32(), hn::BitCast(dh, v));
}

// Highway 1.0.3 truncates to bf16; this rounds, and keeps a NaN a (quiet) NaN.
HWY_INLINE VecU16 to_bf16(VecF32 v) {
  const U32 du;
  const auto bits = hn::BitCast(du, v);
  const auto upper = hn::ShiftRight<16>(bits);
  const auto odd = hn::And(upper, hn::Set(du, 1u));
  const auto rounded = hn::ShiftRight<16>(hn::Add(bits, hn::Add(odd, hn::Set(du, 0x7fffu))));
  const auto quiet = hn::Or(upper, hn::Set(du, 64u));
  const auto is_nan = hn::MaskFromVec(hn::BitCast(du, hn::VecFromMask(F32(), hn::IsNaN(v))));
  const auto narrow = hn::IfThenElse(is_nan, quiet, rounded);
  return hn::DemoteTo(U16(), hn::BitCast(I32(), narrow));
}

HWY_INLINE VecF32 from_bf16(VecU16 v) {
  return hn::BitCast(F32(), hn::ShiftLeft<16>(hn::PromoteTo(U32(), v)));
}

// The elements that fill no vector go through a buffer.
template <typename From, typename To, typename Op>
HWY_INLINE void convert(std::span<const From> x, std::span<To> out, Op op) {
  const hn::Rebind<From, F32> from;
  const hn::Rebind<To, F32> to;
  const std::size_t size = out.size();
  std::size_t i = 0;
  for (; i + kLanes <= size; i += kLanes) {
    hn::StoreU(op(hn::LoadU(from, x.data() + i)), to, out.data() + i);
  }
  if (i < size) {
    From input[kLanes] = {};
    To output[kLanes];
    for (std::size_t j = i; j < size; ++j) input[j - i] = x.data()[j];
    hn::StoreU(op(hn::LoadU(from, input)), to, output);
    for (std::size_t j = i; j < size; ++j) out.data()[j] = output[j - i];
  }
}

#endif

}  // namespace

#if defined(HONE_ISA_SCALAR)
#define HONE_CONVERT(vector_op, scalar_op) [](auto v) { return hone::scalar_op(v); }
#else
#define HONE_CONVERT(vector_op, scalar_op) [](auto v) { return vector_op(v); }
#endif

void f32_to_f16_row(std::span<const float> x, std::span<std::uint16_t> out) {
  convert(x, out, HONE_CONVERT(to_f16, f32_to_f16));
}

void f16_to_f32_row(std::span<const std::uint16_t> x, std::span<float> out) {
  convert(x, out, HONE_CONVERT(from_f16, f16_to_f32));
}

void f32_to_bf16_row(std::span<const float> x, std::span<std::uint16_t> out) {
  convert(x, out, HONE_CONVERT(to_bf16, f32_to_bf16));
}

void bf16_to_f32_row(std::span<const std::uint16_t> x, std::span<float> out) {
  convert(x, out, HONE_CONVERT(from_bf16, bf16_to_f32));
}

#undef HONE_CONVERT

}  // namespace hone::kernels::HONE_ISA_NAMESPACE

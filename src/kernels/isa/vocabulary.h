// What every kernel family may use: Highway's ops for the unit's instruction set, as `hn::`.
// SPDX-License-Identifier: Apache-2.0
//
// One definition rule: each unit is compiled with its own flags, and the linker keeps one copy of
// an inline function that several units emit. A copy made with AVX-512 flags would crash a lesser
// CPU. So whatever a family defines goes into namespace hone::kernels::HONE_ISA_NAMESPACE, and what
// it calls from elsewhere is either compiled once (a plain function) or surely inlined (spans,
// HWY_INLINE). No std::sort, std::vector or std::function in a family.
#pragma once

#if defined(__GNUC__) && !defined(__clang__)
// GCC 12 sees "uninitialized" operands inside of its own AVX-512 intrinsics (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#include <hwy/highway.h>
#pragma GCC diagnostic pop

namespace hone::kernels::HONE_ISA_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using F32 = hn::ScalableTag<float>;
using I32 = hn::RebindToSigned<F32>;
using U32 = hn::RebindToUnsigned<F32>;
using VecF32 = hn::Vec<F32>;
using VecI32 = hn::Vec<I32>;

// Lanes of a full f32 vector: 1, 8 or 16.
inline constexpr std::size_t kLanes = HWY_LANES(float);

// The first `count` (<= kLanes) floats, zeros behind; touches no memory past them.
HWY_INLINE VecF32 load_first(const float* from, std::size_t count) {
  const F32 d;
  // Highway's scalar form reads one whatever the mask says.
  if constexpr (kLanes == 1) return count == 0 ? hn::Zero(d) : hn::LoadU(d, from);
  return hn::MaskedLoad(hn::FirstN(d, count), d, from);
}

HWY_INLINE void store_first(VecF32 value, float* to, std::size_t count) {
  const F32 d;
  hn::BlendedStore(value, hn::FirstN(d, count), d, to);
}

}  // namespace hone::kernels::HONE_ISA_NAMESPACE

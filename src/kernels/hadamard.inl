// The fast Walsh-Hadamard transform of rows in blocks: y = x H / sqrt(block) (base/hadamard.h).
// SPDX-License-Identifier: Apache-2.0
//
// Every result is made by the same additions in the same order on every instruction set: a block is
// (K, 2^n); first the butterflies of each row of it, halves from wide to narrow, then K sums.
#include "base/hadamard.h"

namespace hone::kernels::HONE_ISA_NAMESPACE {
namespace {

// Lanes i and i ^ half become their sum and their difference.
template <int kHalf>
HWY_INLINE VecF32 narrow_step(VecF32 v) {
#if defined(HONE_ISA_SCALAR)
  return v;
#else
  const F32 d;
  const I32 di;
  const VecI32 lane = hn::Iota(di, 0);
  const VecI32 bit = hn::Set(di, kHalf);
  const auto partner = hn::IndicesFromVec(d, hn::Xor(lane, bit));
  const VecF32 minus =
      hn::BitCast(d, hn::IfThenElseZero(hn::Eq(hn::And(lane, bit), bit), hn::Set(di, INT32_MIN)));
  return hn::Add(hn::TableLookupLanes(v, partner), hn::Xor(v, minus));
#endif
}

// All steps inside of vectors, over any number of rows of at least a vector; then times a factor.
template <bool kScale>
HWY_INLINE void narrow_steps(float* rows, std::size_t size, VecF32 factor) {
  const F32 d;
  for (std::size_t i = 0; i < size; i += kLanes) {
    VecF32 v = hn::LoadU(d, rows + i);
    if constexpr (kLanes > 8) v = narrow_step<8>(v);
    if constexpr (kLanes > 4) v = narrow_step<4>(v);
    if constexpr (kLanes > 2) v = narrow_step<2>(v);
    if constexpr (kLanes > 1) v = narrow_step<1>(v);
    if constexpr (kScale) v = hn::Mul(v, factor);
    hn::StoreU(v, d, rows + i);
  }
}

HWY_INLINE void wide_steps(float* row, std::size_t size) {
  const F32 d;
  for (std::size_t half = size / 2; half >= kLanes; half /= 2) {
    for (std::size_t first = 0; first < size; first += 2 * half) {
      for (std::size_t i = first; i < first + half; i += kLanes) {
        const VecF32 a = hn::LoadU(d, row + i);
        const VecF32 b = hn::LoadU(d, row + i + half);
        hn::StoreU(hn::Add(a, b), d, row + i);
        hn::StoreU(hn::Sub(a, b), d, row + i + half);
      }
    }
  }
}

// Rows shorter than a vector.
HWY_INLINE void short_steps(float* row, std::size_t size) {
  for (std::size_t half = size / 2; half > 0; half /= 2) {
    for (std::size_t first = 0; first < size; first += 2 * half) {
      for (std::size_t i = first; i < first + half; ++i) {
        const float a = row[i], b = row[i + half];
        row[i] = a + b;
        row[i + half] = a - b;
      }
    }
  }
}

template <int kCore>
struct Signs {
  bool minus[kCore];
};

// Of the terms of sum `row`: a column of H_K, or one of its transpose.
template <int kCore>
consteval Signs<kCore> signs_of(int row, bool transpose) {
  Signs<kCore> signs{};
  for (int s = 0; s < kCore; ++s) {
    signs.minus[s] = (transpose ? paley_sign(kCore, row, s) : paley_sign(kCore, s, row)) < 0;
  }
  return signs;
}

template <int kCore, bool kTranspose, int kRow>
HWY_INLINE VecF32 core_sum(const VecF32* in) {
  constexpr Signs<kCore> kSigns = signs_of<kCore>(kRow, kTranspose);
  VecF32 sum = kSigns.minus[0] ? hn::Neg(in[0]) : in[0];
#pragma GCC unroll 20
  for (int s = 1; s < kCore; ++s) {
    sum = kSigns.minus[s] ? hn::Sub(sum, in[s]) : hn::Add(sum, in[s]);
  }
  return sum;
}

// Column after column of (kCore, size), in place: kCore sums of kCore terms, times a factor.
template <int kCore, bool kTranspose, int kRow = 0, typename Store>
HWY_INLINE void core_rows(const VecF32* in, VecF32 factor, Store store) {
  if constexpr (kRow < kCore) {
    store(kRow, hn::Mul(core_sum<kCore, kTranspose, kRow>(in), factor));
    core_rows<kCore, kTranspose, kRow + 1>(in, factor, store);
  }
}

template <int kCore, bool kTranspose>
__attribute__((noinline)) void core_steps(float* blocks, std::size_t count, std::size_t size,
                                          VecF32 factor) {
  const F32 d;
  for (std::size_t block = 0; block < count; ++block) {
    float* const from = blocks + block * size * kCore;
    for (std::size_t j = 0; j < size; j += kLanes) {
      const std::size_t lanes = size - j < kLanes ? size - j : kLanes;
      VecF32 in[kCore];
      for (int s = 0; s < kCore; ++s) {
        const float* at = from + static_cast<std::size_t>(s) * size + j;
        in[s] = lanes == kLanes ? hn::LoadU(d, at) : load_first(at, lanes);
      }
      core_rows<kCore, kTranspose>(in, factor, [&](int row, VecF32 sum) HWY_ATTR {
        float* at = from + static_cast<std::size_t>(row) * size + j;
        if (lanes == kLanes) {
          hn::StoreU(sum, d, at);
        } else {
          store_first(sum, at, lanes);
        }
      });
    }
  }
}

HWY_INLINE void scale_all(float* x, std::size_t size, VecF32 factor) {
  const F32 d;
  std::size_t i = 0;
  for (; i + kLanes <= size; i += kLanes) {
    hn::StoreU(hn::Mul(hn::LoadU(d, x + i), factor), d, x + i);
  }
  if (i < size) store_first(hn::Mul(load_first(x + i, size - i), factor), x + i, size - i);
}

}  // namespace

void hadamard_row(std::span<const float> x, std::int64_t block, bool transpose,
                  std::span<float> out) {
  const int core = hadamard_core(block);
  const auto whole = static_cast<std::size_t>(block);
  const std::size_t size = whole / static_cast<std::size_t>(core);
  const std::size_t all = out.size() / whole * whole;
  const VecF32 factor = hn::Set(F32(), 1.0f / __builtin_sqrtf(static_cast<float>(block)));
  float* const to = out.data();
  if (x.data() != to) {
    for (std::size_t i = 0; i < all; ++i) to[i] = x.data()[i];
  }
  const bool is_short = size < kLanes || kLanes == 1;
  for (std::size_t row = 0; row < all; row += size) {
    if (is_short) {
      short_steps(to + row, size);
    } else {
      wide_steps(to + row, size);
    }
  }
  if (!is_short && core == 1) narrow_steps<true>(to, all, factor);
  if (!is_short && core > 1) narrow_steps<false>(to, all, factor);
  if (core == 12) {
    (transpose ? core_steps<12, true> : core_steps<12, false>)(to, all / whole, size, factor);
  } else if (core == 20) {
    (transpose ? core_steps<20, true> : core_steps<20, false>)(to, all / whole, size, factor);
  } else if (is_short) {
    scale_all(to, all, factor);
  }
}

void butterfly(std::span<float> a, std::span<float> b) {
  const F32 d;
  const std::size_t size = a.size();
  std::size_t i = 0;
  for (; i + kLanes <= size; i += kLanes) {
    const VecF32 u = hn::LoadU(d, a.data() + i);
    const VecF32 v = hn::LoadU(d, b.data() + i);
    hn::StoreU(hn::Add(u, v), d, a.data() + i);
    hn::StoreU(hn::Sub(u, v), d, b.data() + i);
  }
  if (i < size) {
    const VecF32 u = load_first(a.data() + i, size - i);
    const VecF32 v = load_first(b.data() + i, size - i);
    store_first(hn::Add(u, v), a.data() + i, size - i);
    store_first(hn::Sub(u, v), b.data() + i, size - i);
  }
}

}  // namespace hone::kernels::HONE_ISA_NAMESPACE

// The fast Walsh-Hadamard transform of rows in blocks: y = x H / sqrt(block) (base/hadamard.h).
// SPDX-License-Identifier: Apache-2.0
//
// Every result is made by the same additions in the same order on every instruction set: a block is
// (K, 2^n); first the butterflies of each row of it, halves from wide to narrow, then K sums.
#include "base/hadamard.h"

namespace hone::kernels::HONE_ISA_NAMESPACE {
namespace {

constexpr int kMostCore = 20;

// One step inside of vectors: lanes i and i ^ half become their sum and their difference.
HWY_INLINE void narrow_step(float* row, std::size_t size, std::size_t half) {
#if defined(HONE_ISA_SCALAR)
  (void)row, (void)size, (void)half;
#else
  const F32 d;
  const I32 di;
  const VecI32 lane = hn::Iota(di, 0);
  const VecI32 bit = hn::Set(di, static_cast<std::int32_t>(half));
  const auto partner = hn::IndicesFromVec(d, hn::Xor(lane, bit));
  const VecF32 minus =
      hn::BitCast(d, hn::IfThenElseZero(hn::Eq(hn::And(lane, bit), bit), hn::Set(di, INT32_MIN)));
  for (std::size_t i = 0; i < size; i += kLanes) {
    const VecF32 v = hn::LoadU(d, row + i);
    hn::StoreU(hn::Add(hn::TableLookupLanes(v, partner), hn::Xor(v, minus)), d, row + i);
  }
#endif
}

HWY_INLINE void wide_step(float* row, std::size_t size, std::size_t half) {
  const F32 d;
  for (std::size_t first = 0; first < size; first += 2 * half) {
    for (std::size_t i = first; i < first + half; i += kLanes) {
      const VecF32 a = hn::LoadU(d, row + i);
      const VecF32 b = hn::LoadU(d, row + i + half);
      hn::StoreU(hn::Add(a, b), d, row + i);
      hn::StoreU(hn::Sub(a, b), d, row + i + half);
    }
  }
}

// Sizes below a vector.
HWY_INLINE void short_row(float* row, std::size_t size) {
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

HWY_INLINE void sylvester_row(float* row, std::size_t size) {
  if (size < kLanes) {
    short_row(row, size);
    return;
  }
  std::size_t half = size / 2;
  for (; half >= kLanes && half > 0; half /= 2) wide_step(row, size, half);
  for (; half > 0; half /= 2) narrow_step(row, size, half);
}

struct Signs {
  float at[kMostCore][kMostCore];
};

// Of the matrix whose rows are summed: H_K^T, or H_K itself.
HWY_INLINE void fill_signs(int core, bool transpose, Signs* signs) {
  const std::span<const std::int8_t> table = hadamard_signs(core);
  for (int r = 0; r < core; ++r) {
    for (int s = 0; s < core; ++s) {
      const int at = transpose ? r * core + s : s * core + r;
      signs->at[r][s] = static_cast<float>(table.data()[at]);
    }
  }
}

// (core, size) in place: column j becomes that matrix times it.
HWY_INLINE void core_step(float* block, std::size_t size, int core, const Signs& signs) {
  const F32 d;
  for (std::size_t j = 0; j < size; j += kLanes) {
    const std::size_t count = size - j < kLanes ? size - j : kLanes;
    VecF32 in[kMostCore];
    for (int s = 0; s < core; ++s) {
      const float* from = block + static_cast<std::size_t>(s) * size + j;
      in[s] = count == kLanes ? hn::LoadU(d, from) : load_first(from, count);
    }
    for (int r = 0; r < core; ++r) {
      VecF32 sum = hn::Zero(d);
      for (int s = 0; s < core; ++s) sum = hn::Add(sum, hn::Mul(hn::Set(d, signs.at[r][s]), in[s]));
      float* to = block + static_cast<std::size_t>(r) * size + j;
      if (count == kLanes) {
        hn::StoreU(sum, d, to);
      } else {
        store_first(sum, to, count);
      }
    }
  }
}

}  // namespace

void hadamard_row(std::span<const float> x, std::int64_t block, bool transpose,
                  std::span<float> out) {
  const int core = hadamard_core(block);
  const auto whole = static_cast<std::size_t>(block);
  const std::size_t size = whole / static_cast<std::size_t>(core);
  const F32 d;
  const VecF32 factor = hn::Set(d, 1.0f / __builtin_sqrtf(static_cast<float>(block)));
  Signs signs;
  if (core > 1) fill_signs(core, transpose, &signs);
  float* const to = out.data();
  if (x.data() != to) {
    for (std::size_t i = 0; i < out.size(); ++i) to[i] = x.data()[i];
  }
  for (std::size_t first = 0; first + whole <= out.size(); first += whole) {
    for (std::size_t row = 0; row < whole; row += size) sylvester_row(to + first + row, size);
    if (core > 1) core_step(to + first, size, core, signs);
  }
  std::size_t i = 0;
  for (; i + kLanes <= out.size(); i += kLanes) {
    hn::StoreU(hn::Mul(hn::LoadU(d, to + i), factor), d, to + i);
  }
  if (i < out.size()) {
    const std::size_t rest = out.size() - i;
    store_first(hn::Mul(load_first(to + i, rest), factor), to + i, rest);
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

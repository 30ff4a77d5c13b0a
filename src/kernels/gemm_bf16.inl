// Dense products of numbers rounded to bf16, summed in f32; gemm.h says what they compute.
// SPDX-License-Identifier: Apache-2.0
//
// The walk is that of gemm.inl. Panels and slivers hold pairs: two depths of one column or row as
// one 32-bit word, what VDPBF16PS takes.
#include "kernels/gemm_panel.h"
#include "kernels/isa/row.h"

namespace hone::kernels::HONE_ISA_NAMESPACE {

// convert.inl of this instruction set.
void f32_to_bf16_row(std::span<const float> x, std::span<std::uint16_t> out);

namespace {

using VecU32 = hn::Vec<U32>;

inline constexpr std::int64_t kBlockPairs = kBlockDepth / 2;
// Words between the packed rows of a row-major A: a line more than a multiple of a page's share, so
// that rows lie in different sets of the first-level cache.
inline constexpr std::int64_t kRowPairs = kBlockPairs + 16;
inline constexpr std::int64_t kPairSlivers = 96 / kTileRows;
inline constexpr std::int64_t kSliverPairs = kBlockPairs * kTileRows + 16;

// sum + low a * low b + high a * high b. The products are exact in f32.
template <bool kNative>
HONE_INLINE VecF32 dot_pairs(VecF32 sum, VecU32 a, VecU32 b) {
#if defined(HONE_ISA_AVX512)
  // AVX512_BF16 is not among the unit's flags; the caller has asked the CPU.
  if constexpr (kNative) {
    asm("vdpbf16ps %2, %1, %0" : "+v"(sum.raw) : "v"(a.raw), "v"(b.raw));
    return sum;
  }
#else
  static_assert(!kNative);
#endif
  const F32 d;
  const VecU32 high = hn::Set(U32(), 0xffff0000U);
  const auto low_of = [&](VecU32 x) HONE_LAMBDA { return hn::BitCast(d, hn::ShiftLeft<16>(x)); };
  const auto high_of = [&](VecU32 x) HONE_LAMBDA { return hn::BitCast(d, hn::And(x, high)); };
  sum = hn::MulAdd(high_of(a), high_of(b), sum);
  return hn::MulAdd(low_of(a), low_of(b), sum);
}

// Rounded to nearest, ties to even, in the upper half of each word. A NaN with no bit in its upper
// half becomes infinite; those that arithmetic makes have one.
HONE_INLINE VecU32 rounded_bits(VecF32 x) {
  const U32 d;
  const VecU32 bits = hn::BitCast(d, x);
  const VecU32 odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(d, 1U));
  return hn::Add(bits, hn::Add(odd, hn::Set(d, 0x7fffU)));
}

HONE_INLINE VecU32 pairs_of(VecF32 low, VecF32 high) {
  return hn::Or(hn::ShiftRight<16>(rounded_bits(low)),
                hn::And(rounded_bits(high), hn::Set(U32(), 0xffff0000U)));
}

struct PairSliver {
  const std::uint32_t* a;
  std::int64_t pairs;
  const std::uint32_t* panel;
  float* c;
  std::ptrdiff_t c_stride;
  std::int64_t columns;
  bool begins;
};

// kDirect: A's packed rows, kRowPairs words apart. Else a packed sliver, (pairs, kTileRows).
template <int kRows, bool kDirect, bool kNative>
__attribute__((noinline)) void pair_sliver_times_panels(const PairSliver& sliver) {
  const U32 d32;
  constexpr std::ptrdiff_t kRowStep = kDirect ? kRowPairs : 1;
  constexpr std::ptrdiff_t kPairStep = kDirect ? 1 : kTileRows;
  const std::uint32_t* b = sliver.panel;
  for (std::int64_t column = 0; column < sliver.columns; column += kTileColumns) {
    TileOfC<kRows> sums;
    const std::int64_t rest = sliver.columns - column;
    if (sliver.begins) {
      sums.clear();
    } else {
      sums.load(sliver.c + column, sliver.c_stride, rest);
    }
    const std::uint32_t* a = sliver.a;
    for (std::int64_t p = 0; p < sliver.pairs; ++p) {
      VecU32 right[kTileVectors];
      HONE_UNROLL for (int v = 0; v < kTileVectors; ++v) {
        right[v] = hn::LoadU(d32, b + v * static_cast<std::ptrdiff_t>(kLanes));
      }
      HONE_UNROLL for (int row = 0; row < kRows; ++row) {
        const VecU32 left = hn::Set(d32, a[row * kRowStep]);
        HONE_UNROLL for (int v = 0; v < kTileVectors; ++v) {
          sums.at[row][v] = dot_pairs<kNative>(sums.at[row][v], left, right[v]);
        }
      }
      a += kPairStep;
      b += kTileColumns;
    }
    sums.store(sliver.c + column, sliver.c_stride, rest);
  }
}

template <int kMost, bool kDirect, bool kNative>
HONE_INLINE void visit_pair_sliver(std::int64_t rows, const PairSliver& sliver) {
  if constexpr (kMost > 1) {
    if (rows < kMost) {
      visit_pair_sliver<kMost - 1, kDirect, kNative>(rows, sliver);
      return;
    }
  }
  pair_sliver_times_panels<kMost, kDirect, kNative>(sliver);
}

// A's rows as they lie, rounded; an odd depth ends with a pair whose upper half is 0.
inline void pack_pair_rows(const GemmTask& task, std::int64_t row, std::int64_t rows,
                           std::int64_t first_depth, std::int64_t depth, std::uint32_t* out) {
  for (std::int64_t i = 0; i < rows; ++i) {
    const float* from =
        task.a + (row + i) * static_cast<std::ptrdiff_t>(task.a_stride) + first_depth;
    std::uint32_t* to = out + i * kRowPairs;
    if (depth % 2 != 0) to[depth / 2] = 0;
    const auto count = static_cast<std::size_t>(depth);
    f32_to_bf16_row({from, count}, {reinterpret_cast<std::uint16_t*>(to), count});
  }
}

// Two rows of numbers, the second one all zeros where it is null: `count` pairs. Whole vectors are
// stored: what is too much, the next store overwrites, or it is room of the sliver.
HONE_INLINE void put_pairs(const float* low, const float* high, std::int64_t count,
                           std::uint32_t* out) {
  const auto load = [&](const float* from, std::int64_t at, std::size_t lanes) HONE_LAMBDA {
    if (from == nullptr) return hn::Zero(F32());
    return lanes == kLanes ? hn::LoadU(F32(), from + at) : load_first(from + at, lanes);
  };
  for (std::int64_t i = 0; i < count; i += static_cast<std::int64_t>(kLanes)) {
    const auto lanes = static_cast<std::size_t>(
        std::min<std::int64_t>(count - i, static_cast<std::int64_t>(kLanes)));
    hn::StoreU(pairs_of(load(low, i, lanes), load(high, i, lanes)), U32(), out + i);
  }
}

// A transposed A: `count` rows from `row` on, a sliver for each kTileRows of them.
inline void pack_pair_slivers(const GemmTask& task, std::int64_t row, std::int64_t count,
                              std::int64_t first_depth, std::int64_t depth, std::uint32_t* out) {
  const std::ptrdiff_t stride = static_cast<std::ptrdiff_t>(task.a_stride);
  for (std::int64_t d = 0; d < depth; d += 2) {
    const float* low = task.a + (first_depth + d) * stride + row;
    const float* high = d + 1 < depth ? low + stride : nullptr;
    std::uint32_t* to = out + d / 2 * kTileRows;
    for (std::int64_t i = 0; i < count; i += kTileRows, to += kSliverPairs) {
      const std::int64_t rows = std::min<std::int64_t>(kTileRows, count - i);
      put_pairs(low + i, high == nullptr ? nullptr : high + i, rows, to);
    }
  }
}

// B's panels of pairs, (pairs, kTileColumns) each, by way of `numbers`.
inline void fill_pairs(const GemmTask& task, const PackedLayout* layout, const GemmBlock& block,
                       float* numbers, std::uint32_t* out) {
  const std::int64_t pairs = (block.depth + 1) / 2;
  for (std::int64_t column = 0; column < block.columns; column += kGemmGranule) {
    const std::int64_t columns = std::min(kGemmGranule, block.columns - column);
    const GemmBlock part{block.first_depth, block.depth, block.first_column + column, columns,
                         numbers};
    fill_block(task, layout, part);
    for (std::int64_t i = 0; i < columns; i += kTileColumns) {
      const float* from = part.at(0, i);
      std::uint32_t* to = out + (column + i) * pairs;
      for (std::int64_t d = 0; d < block.depth; d += 2) {
        const float* low = from + d * kTileColumns;
        put_pairs(low, d + 1 < block.depth ? low + kTileColumns : nullptr, kTileColumns, to);
        to += kTileColumns;
      }
    }
  }
}

template <bool kNative>
inline void multiply_pairs(const GemmTask& task) {
  auto* const panels = reinterpret_cast<std::uint32_t*>(task.scratch.data());
  std::uint32_t* const packed = panels + kBlockPairs * kBlockColumns;
  constexpr std::int64_t kPackedWords = kPairSlivers * kSliverPairs + kLanes;
  auto* const numbers = reinterpret_cast<float*>(packed + kPackedWords);
  static_assert(kTileRows * kRowPairs <= kPackedWords);
  static_assert((kBlockPairs * kBlockColumns + kPackedWords + kBlockDepth * kGemmGranule) *
                    sizeof(float) <=
                kGemmScratchBytes);
  const auto layout = task.b.packed ? packed_layout(task.b.dtype, task.b.rows, task.b.columns)
                                    : std::optional<PackedLayout>();
  const std::ptrdiff_t c_stride = static_cast<std::ptrdiff_t>(task.c_stride);
  const std::int64_t end_column = task.first_column + task.column_count;
  const std::int64_t end_row = task.first_row + task.row_count;
  const std::int64_t block_columns = columns_of_block(task.column_count);
  for (std::int64_t column = task.first_column; column < end_column; column += block_columns) {
    const std::int64_t columns = std::min(block_columns, end_column - column);
    for (std::int64_t k = 0; k < task.depth; k += kBlockDepth) {
      const std::int64_t depth = std::min(kBlockDepth, task.depth - k);
      fill_pairs(task, layout ? &*layout : nullptr, {k, depth, column, columns, nullptr}, numbers,
                 panels);
      for (std::int64_t row = task.first_row; row < end_row; row += kTileRows) {
        const std::int64_t rows = std::min<std::int64_t>(kTileRows, end_row - row);
        PairSliver sliver{
            packed,  (depth + 1) / 2,           panels, task.c + row * c_stride + column, c_stride,
            columns, k == 0 && !task.accumulate};
        if (!task.a_transposed) {
          pack_pair_rows(task, row, rows, k, depth, packed);
          visit_pair_sliver<kTileRows, true, kNative>(rows, sliver);
          continue;
        }
        const std::int64_t index = (row - task.first_row) / kTileRows % kPairSlivers;
        if (index == 0) {
          const std::int64_t most = kPairSlivers * kTileRows;
          pack_pair_slivers(task, row, std::min(most, end_row - row), k, depth, packed);
        }
        sliver.a = packed + index * kSliverPairs;
        visit_pair_sliver<kTileRows, false, kNative>(rows, sliver);
      }
    }
  }
}

}  // namespace

void gemm_bf16(const GemmTask& task) {
#if defined(HONE_ISA_AVX512)
  if (__builtin_cpu_supports("avx512bf16")) return multiply_pairs<true>(task);
#endif
  multiply_pairs<false>(task);
}

}  // namespace hone::kernels::HONE_ISA_NAMESPACE

// Dense products over panels of B that fit into the caches; gemm.h says what they compute.
// SPDX-License-Identifier: Apache-2.0
//
// For blocks of B's columns, for blocks of the depth: fill B's panels (decoding weights once), then
// for every sliver of kTileRows rows of A, which stays in the first-level cache, go along the
// panels, which stream out of the second. Between blocks of the depth the sums wait in C.
#include "kernels/gemm_panel.h"

namespace hone::kernels::HONE_ISA_NAMESPACE {
namespace {

HONE_INLINE VecF32 chain(VecF32 a, VecF32 b, VecF32 sum) {
#if defined(HONE_ISA_SCALAR)
  return VecF32(std::fma(a.raw, b.raw, sum.raw));
#else
  return hn::MulAdd(a, b, sum);
#endif
}

// One sliver of A against panels of B. Direct: A's rows as they lie, `stride` floats apart. Else a
// packed sliver, (depth, kTileRows).
struct Sliver {
  const float* a;
  std::ptrdiff_t stride;
  std::int64_t depth;
  const float* panel;  // the first of them
  float* c;
  std::ptrdiff_t c_stride;
  std::int64_t columns;
  bool begins;  // sums begin with 0, not with C
};

template <int kRows, bool kDirect>
__attribute__((noinline)) void sliver_times_panels(const Sliver& sliver) {
  const F32 d;
  const std::ptrdiff_t row_step = kDirect ? sliver.stride : 1;
  const std::ptrdiff_t depth_step = kDirect ? 1 : kTileRows;
  const float* b = sliver.panel;
  for (std::int64_t column = 0; column < sliver.columns; column += kTileColumns) {
    TileOfC<kRows> sums;
    const std::int64_t rest = sliver.columns - column;
    if (sliver.begins) {
      sums.clear();
    } else {
      sums.load(sliver.c + column, sliver.c_stride, rest);
    }
    const float* a = sliver.a;
    for (std::int64_t k = 0; k < sliver.depth; ++k) {
      VecF32 right[kTileVectors];
      HONE_UNROLL for (int v = 0; v < kTileVectors; ++v) {
        right[v] = hn::LoadU(d, b + v * static_cast<std::ptrdiff_t>(kLanes));
      }
      HONE_UNROLL for (int row = 0; row < kRows; ++row) {
        const VecF32 left = hn::Set(d, a[row * row_step]);
        HONE_UNROLL for (int v = 0; v < kTileVectors; ++v) {
          sums.at[row][v] = chain(left, right[v], sums.at[row][v]);
        }
      }
      a += depth_step;
      b += kTileColumns;
    }
    sums.store(sliver.c + column, sliver.c_stride, rest);
  }
}

template <int kMost, bool kDirect>
HONE_INLINE void visit_sliver(std::int64_t rows, const Sliver& sliver) {
  if constexpr (kMost > 1) {
    if (rows < kMost) {
      visit_sliver<kMost - 1, kDirect>(rows, sliver);
      return;
    }
  }
  sliver_times_panels<kMost, kDirect>(sliver);
}

// A transposed A is packed: slivers of (depth, kTileRows), some of them at a time, so that whole
// cache lines of A's rows are read. Slivers are a line more than a multiple of a page apart: else
// all of them would want the same few sets of the first-level cache. The last store of a sliver
// reaches into that line.
inline constexpr std::int64_t kPackedSlivers = 96 / kTileRows;
inline constexpr std::int64_t kSliverFloats = kBlockDepth * kTileRows + 16;

// `count` rows of A from `row` on: a sliver for each kTileRows of them.
inline void pack_rows(const GemmTask& task, std::int64_t row, std::int64_t count,
                      std::int64_t first_depth, std::int64_t depth, float* out) {
  const std::ptrdiff_t stride = static_cast<std::ptrdiff_t>(task.a_stride);
  const float* from = task.a + first_depth * stride + row;
  for (std::int64_t d = 0; d < depth; ++d) {
    float* to = out + d * kTileRows;
    std::int64_t i = 0;
#if !defined(HONE_ISA_SCALAR)
    // Whole vectors: what is too much, the next depth overwrites.
    static_assert(kTileRows <= static_cast<int>(kLanes));
    for (; i + static_cast<std::int64_t>(kLanes) <= count; i += kTileRows, to += kSliverFloats) {
      hn::StoreU(hn::LoadU(F32(), from + i), F32(), to);
    }
#endif
    for (; i < count; i += kTileRows, to += kSliverFloats) {
      const std::int64_t rest = std::min<std::int64_t>(kTileRows, count - i);
      for (std::int64_t j = 0; j < rest; ++j) to[j] = from[i + j];
    }
    from += stride;
  }
}

}  // namespace

void gemm_f32(const GemmTask& task) {
  float* const panels = reinterpret_cast<float*>(task.scratch.data());
  float* const packed = panels + kBlockDepth * kBlockColumns;
  static_assert((kBlockDepth * kBlockColumns + kPackedSlivers * kSliverFloats) * sizeof(float) <=
                kGemmScratchBytes);
  const auto layout = task.b.packed ? packed_layout(task.b.dtype, task.b.rows, task.b.columns)
                                    : std::optional<PackedLayout>();
  const std::ptrdiff_t a_stride = static_cast<std::ptrdiff_t>(task.a_stride);
  const std::ptrdiff_t c_stride = static_cast<std::ptrdiff_t>(task.c_stride);
  const std::int64_t end_column = task.first_column + task.column_count;
  const std::int64_t end_row = task.first_row + task.row_count;
  const std::int64_t block_columns = columns_of_block(task.column_count);
  for (std::int64_t column = task.first_column; column < end_column; column += block_columns) {
    const std::int64_t columns = std::min(block_columns, end_column - column);
    for (std::int64_t k = 0; k < task.depth; k += kBlockDepth) {
      const std::int64_t depth = std::min(kBlockDepth, task.depth - k);
      fill_block(task, layout ? &*layout : nullptr, {k, depth, column, columns, panels});
      for (std::int64_t row = task.first_row; row < end_row; row += kTileRows) {
        const std::int64_t rows = std::min<std::int64_t>(kTileRows, end_row - row);
        Sliver sliver{nullptr,
                      a_stride,
                      depth,
                      panels,
                      task.c + row * c_stride + column,
                      c_stride,
                      columns,
                      k == 0 && !task.accumulate};
        if (task.a_transposed) {
          const std::int64_t index = (row - task.first_row) / kTileRows % kPackedSlivers;
          if (index == 0) {
            const std::int64_t most = kPackedSlivers * kTileRows;
            pack_rows(task, row, std::min(most, end_row - row), k, depth, packed);
          }
          sliver.a = packed + index * kSliverFloats;
          visit_sliver<kTileRows, false>(rows, sliver);
        } else {
          sliver.a = task.a + row * a_stride + k;
          visit_sliver<kTileRows, true>(rows, sliver);
        }
      }
    }
  }
}

}  // namespace hone::kernels::HONE_ISA_NAMESPACE

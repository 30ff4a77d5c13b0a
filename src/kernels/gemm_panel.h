// Fills B's panels: kTileColumns columns side by side, depth after depth, from every kind of
// matrix.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>

#include "kernels/gemm.h"
#include "kernels/matmul_decode.h"
#include "quant/codec.h"

namespace hone::kernels::HONE_ISA_NAMESPACE {
namespace {

// Vectors of a tile's row; a tile is kTileRows times kTileColumns accumulators.
#if defined(HONE_ISA_AVX512)
inline constexpr int kTileVectors = 2;
inline constexpr int kTileRows = 12;
#elif defined(HONE_ISA_AVX2)
inline constexpr int kTileVectors = 2;
inline constexpr int kTileRows = 6;
#else
inline constexpr int kTileVectors = 4;
inline constexpr int kTileRows = 3;
#endif
inline constexpr std::int64_t kTileColumns = kTileVectors * static_cast<std::int64_t>(kLanes);

// A panel block of B: 256 KB, half of a second-level cache of 512 KB; one panel of it (16 KB) fits
// into the first-level cache beside a sliver of A.
inline constexpr std::int64_t kBlockDepth = 256;
inline constexpr std::int64_t kBlockColumns = 256;
static_assert(kBlockColumns % kGemmGranule == 0 && kGemmGranule % kTileColumns == 0);

// Blocks of nearly equal width: A is read once for each of them.
HONE_INLINE std::int64_t columns_of_block(std::int64_t columns) {
  const std::int64_t blocks =
      std::max<std::int64_t>(1, (columns + kBlockColumns - 1) / kBlockColumns);
  const std::int64_t each = (columns + blocks - 1) / blocks;
  return (each + kGemmGranule - 1) / kGemmGranule * kGemmGranule;
}

// The part of B that is filled at a time.
struct GemmBlock {
  std::int64_t first_depth;
  std::int64_t depth;  // at most kBlockDepth
  std::int64_t first_column;
  std::int64_t columns;  // at most kBlockColumns
  float* out;            // panel after panel, each (depth, kTileColumns), zeros past the columns

  HONE_INLINE float* at(std::int64_t d, std::int64_t column) const {
    return out + column / kTileColumns * kTileColumns * depth + d * kTileColumns +
           column % kTileColumns;
  }
};

// out[j * out_pitch + i] = in[i * in_pitch + j] for eight i and eight j.
HONE_INLINE void transpose_8x8(const float* in, std::ptrdiff_t in_pitch, float* out,
                               std::ptrdiff_t out_pitch) {
#if defined(HONE_ISA_SCALAR)
  for (int i = 0; i < 8; ++i) {
    for (int j = 0; j < 8; ++j) out[j * out_pitch + i] = in[i * in_pitch + j];
  }
#else
  const hn::FixedTag<float, 8> d;
  const hn::FixedTag<double, 4> d64;
  using V = hn::Vec<decltype(d)>;
  const auto row = [&](int i) HONE_LAMBDA { return hn::LoadU(d, in + i * in_pitch); };
  // Of four rows: the columns (j, j + 4) side by side in blocks of four.
  const auto four = [&](int first, V* columns) HONE_LAMBDA {
    const V low01 = hn::InterleaveLower(d, row(first), row(first + 1));
    const V high01 = hn::InterleaveUpper(d, row(first), row(first + 1));
    const V low23 = hn::InterleaveLower(d, row(first + 2), row(first + 3));
    const V high23 = hn::InterleaveUpper(d, row(first + 2), row(first + 3));
    const auto wide = [&](V v) HONE_LAMBDA { return hn::BitCast(d64, v); };
    columns[0] = hn::BitCast(d, hn::InterleaveLower(d64, wide(low01), wide(low23)));
    columns[1] = hn::BitCast(d, hn::InterleaveUpper(d64, wide(low01), wide(low23)));
    columns[2] = hn::BitCast(d, hn::InterleaveLower(d64, wide(high01), wide(high23)));
    columns[3] = hn::BitCast(d, hn::InterleaveUpper(d64, wide(high01), wide(high23)));
  };
  V upper[4], lower[4];
  four(0, upper);
  four(4, lower);
  HONE_UNROLL for (int j = 0; j < 4; ++j) {
    hn::StoreU(hn::ConcatLowerLower(d, lower[j], upper[j]), d, out + j * out_pitch);
    hn::StoreU(hn::ConcatUpperUpper(d, lower[j], upper[j]), d, out + (j + 4) * out_pitch);
  }
#endif
}

// Zeros where the last panel has no columns.
inline void clear_edge(const GemmBlock& block) {
  const std::int64_t edge = block.columns % kTileColumns;
  if (edge == 0) return;
  for (std::int64_t d = 0; d < block.depth; ++d) {
    std::fill_n(block.at(d, block.columns), kTileColumns - edge, 0.0F);
  }
}

// From rows of the matrix that are depths: `count` columns of one depth.
inline void put_row(const GemmBlock& block, std::int64_t d, const float* from) {
  std::int64_t column = 0;
  for (; column + kTileColumns <= block.columns; column += kTileColumns) {
    float* to = block.at(d, column);
    HONE_UNROLL for (int v = 0; v < kTileVectors; ++v) {
      hn::StoreU(hn::LoadU(F32(), from + column + v * kLanes), F32(), to + v * kLanes);
    }
  }
  for (; column < block.columns; ++column) *block.at(d, column) = from[column];
}

// From rows of the matrix that are columns of B: `rows` of them, `depth` floats each.
inline void put_columns(const GemmBlock& block, std::int64_t column, std::int64_t rows,
                        const float* from, std::ptrdiff_t pitch) {
  std::int64_t row = 0;
  if constexpr (kTileColumns % 8 == 0) {
    for (; row + 8 <= rows && (column + row) % 8 == 0; row += 8) {
      std::int64_t d = 0;
      for (; d + 8 <= block.depth; d += 8) {
        transpose_8x8(from + row * pitch + d, pitch, block.at(d, column + row), kTileColumns);
      }
      for (; d < block.depth; ++d) {
        for (int i = 0; i < 8; ++i) *block.at(d, column + row + i) = from[(row + i) * pitch + d];
      }
    }
  }
  for (; row < rows; ++row) {
    for (std::int64_t d = 0; d < block.depth; ++d) {
      *block.at(d, column + row) = from[row * pitch + d];
    }
  }
}

// Packed weights whose rows are B's columns: a panel of 16 rows is 16 columns.
inline void fill_from_packed_transposed(const PackedLayout& layout, const std::byte* weights,
                                        const GemmBlock& block) {
  for (std::int64_t column = 0; column < block.columns; column += kPanelRows) {
    const std::int64_t panel = (block.first_column + column) / kPanelRows;
    if constexpr (kTileColumns % kPanelRows == 0) {
      // Rows past the last are zeros in the packed form, too.
      decode_panel(layout, weights, panel, block.first_depth, static_cast<int>(block.depth),
                   block.at(0, column), kTileColumns);
    } else {
      float values[kBlockDepth * kPanelRows];
      decode_panel(layout, weights, panel, block.first_depth, static_cast<int>(block.depth), values,
                   kPanelRows);
      const std::int64_t count = std::min(kPanelRows, block.columns - column);
      for (std::int64_t d = 0; d < block.depth; ++d) {
        for (std::int64_t i = 0; i < count; ++i) {
          *block.at(d, column + i) = values[d * kPanelRows + i];
        }
      }
    }
  }
  // Behind an odd number of 16s in panels of 32.
  const std::int64_t filled = (block.columns + kPanelRows - 1) / kPanelRows * kPanelRows;
  for (std::int64_t column = filled; column % kTileColumns != 0; ++column) {
    for (std::int64_t d = 0; d < block.depth; ++d) *block.at(d, column) = 0.0F;
  }
}

// Packed weights whose columns are B's columns: 16 rows are 16 depths, so units are transposed.
inline void fill_from_packed(const PackedLayout& layout, const std::byte* weights,
                             const GemmBlock& block) {
  alignas(64) float unit[kUnitColumns * kPanelRows];  // (32 columns, 16 rows)
  for (std::int64_t d = 0; d < block.depth; d += kPanelRows) {
    const std::int64_t panel = (block.first_depth + d) / kPanelRows;
    const std::int64_t rows = std::min(kPanelRows, block.depth - d);
    for (std::int64_t column = 0; column < block.columns; column += kUnitColumns) {
      const std::int64_t count = std::min<std::int64_t>(kUnitColumns, block.columns - column);
      decode_panel(layout, weights, panel, block.first_column + column, static_cast<int>(count),
                   unit, kPanelRows);
      if (kTileColumns % 8 == 0 && rows == kPanelRows && count == kUnitColumns) {
        for (int i = 0; i < kUnitColumns; i += 8) {
          float* to = block.at(d, column + i);
          transpose_8x8(unit + i * kPanelRows, kPanelRows, to, kTileColumns);
          transpose_8x8(unit + i * kPanelRows + 8, kPanelRows, to + 8 * kTileColumns, kTileColumns);
        }
        continue;
      }
      for (std::int64_t row = 0; row < rows; ++row) {
        for (std::int64_t i = 0; i < count; ++i) {
          *block.at(d + row, column + i) = unit[i * kPanelRows + row];
        }
      }
    }
  }
  clear_edge(block);
}

// Rows of blocks as in a file: what covers columns [first, first + count) of a row, decoded by the
// format's codec. Not fast: weights that are used often are packed.
struct FileRow {
  static constexpr std::int64_t kMostBlock = 256;
  float values[kBlockColumns + 2 * kMostBlock];

  const float* decode(const GemmMatrix& matrix, const quant::Codec& codec, std::int64_t row,
                      std::int64_t first, std::int64_t count) {
    const DTypeInfo& info = dtype_info(matrix.dtype);
    const std::int64_t begin = first / info.block * info.block;
    const std::int64_t end = (first + count + info.block - 1) / info.block * info.block;
    const std::int64_t at = (row * matrix.columns + begin) / info.block * info.bytes;
    const std::int64_t bytes = (end - begin) / info.block * info.bytes;
    codec.decode(
        matrix.bytes.subspan(static_cast<std::size_t>(at), static_cast<std::size_t>(bytes)),
        std::span<float>(values, static_cast<std::size_t>(end - begin)));
    return values + (first - begin);
  }
};

inline void fill_from_file(const GemmMatrix& matrix, bool transposed, const GemmBlock& block) {
  if (matrix.dtype == DType::kF32) {
    const auto* values = reinterpret_cast<const float*>(matrix.bytes.data());
    if (transposed) {
      put_columns(block, 0, block.columns,
                  values + block.first_column * matrix.columns + block.first_depth, matrix.columns);
    } else {
      for (std::int64_t d = 0; d < block.depth; ++d) {
        put_row(block, d, values + (block.first_depth + d) * matrix.columns + block.first_column);
      }
    }
  } else {
    const quant::Codec& codec = *quant::find_codec(matrix.dtype);
    FileRow row;
    if (transposed) {
      for (std::int64_t column = 0; column < block.columns; ++column) {
        const float* values =
            row.decode(matrix, codec, block.first_column + column, block.first_depth, block.depth);
        put_columns(block, column, 1, values, block.depth);
      }
    } else {
      for (std::int64_t d = 0; d < block.depth; ++d) {
        put_row(
            block, d,
            row.decode(matrix, codec, block.first_depth + d, block.first_column, block.columns));
      }
    }
  }
  clear_edge(block);
}

// What is in the block times the factors: those of a tile's columns are one where columns are
// columns of the weight, and stay for some depths where they are its rows.
inline void scale_block(const GemmMatrix& matrix, bool transposed, const GemmBlock& block) {
  const std::int64_t each = matrix.factor_columns;
  const std::int64_t pitch = matrix.columns / each;
  const auto factor = [&](std::int64_t row, std::int64_t column) {
    return matrix.factor_base + matrix.factors[row * pitch + column / each];
  };
  for (std::int64_t column = 0; column < block.columns; column += kTileColumns) {
    const std::int64_t count = std::min(kTileColumns, block.columns - column);
    float by[kTileColumns] = {};
    for (std::int64_t d = 0; d < block.depth; ++d) {
      if (!transposed) {
        std::fill_n(by, kTileColumns, factor(block.first_depth + d, block.first_column + column));
      } else if (d == 0 || (block.first_depth + d) % each == 0) {
        for (std::int64_t i = 0; i < count; ++i) {
          by[i] = factor(block.first_column + column + i, block.first_depth + d);
        }
      }
      float* at = block.at(d, column);
      HONE_UNROLL for (int v = 0; v < kTileVectors; ++v) {
        float* to = at + v * static_cast<std::ptrdiff_t>(kLanes);
        hn::StoreU(hn::Mul(hn::LoadU(F32(), to),
                           hn::LoadU(F32(), by + v * static_cast<std::ptrdiff_t>(kLanes))),
                   F32(), to);
      }
    }
  }
}

// Elements [begin, begin + count) of a direction.
inline void draw_signs(const DirectionKey& key, std::int64_t begin, std::int64_t count,
                       float* out) {
  constexpr std::uint32_t kOne = 0x3F800000;
  for (std::int64_t at = begin; at < begin + count;) {
    const auto words = direction_draw(key, static_cast<std::uint32_t>(at / kSignsOfDraw));
    const std::int64_t end = std::min(begin + count, (at / kSignsOfDraw + 1) * kSignsOfDraw);
    while (at < end) {
      const std::uint32_t word = words[static_cast<std::size_t>(at % kSignsOfDraw / 32)];
      std::uint32_t* to = reinterpret_cast<std::uint32_t*>(out + (at - begin));
      if (at % 32 == 0 && end - at >= 32) {
        for (std::uint32_t i = 0; i < 32; ++i) to[i] = ((word >> i) << 31) | kOne;
        at += 32;
      } else {
        *to = ((word >> (at % 32)) << 31) | kOne;
        ++at;
      }
    }
  }
}

// A draw costs some 20 ns for 128 elements, each of which is multiplied with every row of A.
inline void fill_from_signs(const GemmMatrix& matrix, const GemmBlock& block) {
  constexpr std::int64_t kTogether = 8;
  float rows[kTogether * kBlockDepth];
  for (std::int64_t column = 0; column < block.columns; column += kTogether) {
    const std::int64_t count = std::min(kTogether, block.columns - column);
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int64_t row = block.first_column + column + i;
      draw_signs(*matrix.signs, row * matrix.columns + block.first_depth, block.depth,
                 rows + i * kBlockDepth);
    }
    put_columns(block, column, count, rows, kBlockDepth);
  }
  clear_edge(block);
}

inline void fill_block(const GemmTask& task, const PackedLayout* layout, const GemmBlock& block) {
  if (task.b.signs != nullptr) {
    fill_from_signs(task.b, block);
  } else if (layout == nullptr) {
    fill_from_file(task.b, task.b_transposed, block);
  } else if (task.b_transposed) {
    fill_from_packed_transposed(*layout, task.b.bytes.data(), block);
  } else {
    fill_from_packed(*layout, task.b.bytes.data(), block);
  }
  if (task.b.factors != nullptr) scale_block(task.b, task.b_transposed, block);
}

// The accumulators of a tile.
template <int kRows>
struct TileOfC {
  VecF32 at[kRows][kTileVectors];

  HONE_INLINE void clear() {
    HONE_UNROLL for (int row = 0; row < kRows; ++row) {
      HONE_UNROLL for (int v = 0; v < kTileVectors; ++v) at[row][v] = hn::Zero(F32());
    }
  }
  // How many of vector v's lanes are among the first `columns` columns.
  static HONE_INLINE std::size_t lanes(int v, std::int64_t columns) {
    const std::int64_t left = columns - v * static_cast<std::int64_t>(kLanes);
    return static_cast<std::size_t>(
        std::clamp<std::int64_t>(left, 0, static_cast<std::int64_t>(kLanes)));
  }
  HONE_INLINE void load(const float* c, std::ptrdiff_t stride, std::int64_t columns) {
    HONE_UNROLL for (int row = 0; row < kRows; ++row) {
      HONE_UNROLL for (int v = 0; v < kTileVectors; ++v) {
        const float* from = c + row * stride + v * static_cast<std::ptrdiff_t>(kLanes);
        at[row][v] =
            columns >= kTileColumns ? hn::LoadU(F32(), from) : load_first(from, lanes(v, columns));
      }
    }
  }
  HONE_INLINE void store(float* c, std::ptrdiff_t stride, std::int64_t columns) const {
    HONE_UNROLL for (int row = 0; row < kRows; ++row) {
      HONE_UNROLL for (int v = 0; v < kTileVectors; ++v) {
        float* to = c + row * stride + v * static_cast<std::ptrdiff_t>(kLanes);
        if (columns >= kTileColumns) {
          hn::StoreU(at[row][v], F32(), to);
        } else {
          store_first(at[row][v], to, lanes(v, columns));
        }
      }
    }
  }
};

}  // namespace
}  // namespace hone::kernels::HONE_ISA_NAMESPACE

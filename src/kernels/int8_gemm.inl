// Products of int8 codes over panels of B that fit into the caches; int8_gemm.h says what they are.
// SPDX-License-Identifier: Apache-2.0
//
// Codes are widened to pairs of 16 bits along the depth while panels are filled: two
// multiplications and an addition in one instruction (VPMADDWD, with VNNI VPDPWSSD), which never
// saturates. The tiles are those of gemm.inl.
#include "kernels/int8_gemm.h"

#include "kernels/gemm_panel.h"

namespace hone::kernels::HONE_ISA_NAMESPACE {
namespace {

constexpr std::int64_t kPairDepth = 512;  // codes of a block of the depth
constexpr std::int64_t kPairs = kPairDepth / 2;
constexpr std::int64_t kPairColumns = 256;
static_assert(kPairs * (kPairColumns + kTileRows) * 4 <= std::int64_t{kInt8GemmScratchBytes});

HONE_INLINE std::int32_t pair_of(std::int8_t first, std::int8_t second) {
  const auto low = static_cast<std::uint16_t>(static_cast<std::int16_t>(first));
  const auto high = static_cast<std::uint16_t>(static_cast<std::int16_t>(second));
  return static_cast<std::int32_t>(low | static_cast<std::uint32_t>(high) << 16);
}

// sum + the two products of each lane's pairs.
HONE_INLINE VecI32 add_pairs(VecI32 a, VecI32 b, VecI32 sum) {
#if defined(HONE_ISA_AVX512)
  return VecI32{_mm512_dpwssd_epi32(sum.raw, a.raw, b.raw)};
#elif defined(HONE_ISA_AVX2)
  return VecI32{_mm256_add_epi32(sum.raw, _mm256_madd_epi16(a.raw, b.raw))};
#else
  const auto low = [](std::int32_t pair) { return std::int32_t{static_cast<std::int16_t>(pair)}; };
  const auto high = [](std::int32_t pair) { return pair >> 16; };
  return VecI32(sum.raw + low(a.raw) * low(b.raw) + high(a.raw) * high(b.raw));
#endif
}

// The part of B that is filled at a time: panel after panel, each (pairs, kTileColumns) of i32.
struct PairBlock {
  std::int64_t first_depth;
  std::int64_t depth;
  std::int64_t first_column;
  std::int64_t columns;
  std::int32_t* out;

  HONE_INLINE std::int64_t pairs() const { return (depth + 1) / 2; }
  HONE_INLINE std::int32_t* at(std::int64_t pair, std::int64_t column) const {
    return out + column / kTileColumns * kTileColumns * pairs() + pair * kTileColumns +
           column % kTileColumns;
  }
};

// Two rows of codes side by side: `count` pairs, sixteen at a time.
HONE_INLINE void zip_rows(const std::int8_t* first, const std::int8_t* second, std::int64_t count,
                          std::int32_t* to) {
  std::int64_t i = 0;
#if !defined(HONE_ISA_SCALAR)
  for (; i + 16 <= count; i += 16) {
    const __m128i a = _mm_loadu_si128(reinterpret_cast<const __m128i*>(first + i));
    const __m128i b = _mm_loadu_si128(reinterpret_cast<const __m128i*>(second + i));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i),
                        _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(a, b)));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i + 8),
                        _mm256_cvtepi8_epi16(_mm_unpackhi_epi8(a, b)));
  }
#endif
  for (; i < count; ++i) to[i] = pair_of(first[i], second[i]);
}

// `depth` codes of a row as pairs, a last odd one with a zero.
HONE_INLINE void widen_row(const std::int8_t* from, std::int64_t depth, std::int32_t* to) {
  std::int64_t i = 0;
#if !defined(HONE_ISA_SCALAR)
  for (; i + 16 <= depth; i += 16) {
    const __m128i codes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i / 2), _mm256_cvtepi8_epi16(codes));
  }
#endif
  for (; i < depth; i += 2) to[i / 2] = pair_of(from[i], i + 1 < depth ? from[i + 1] : 0);
}

inline void fill_rows(const Int8Matrix& b, const PairBlock& block) {
  alignas(64) std::int32_t row[kPairColumns];
  alignas(64) static constexpr std::int8_t kZeros[kPairColumns] = {};
  for (std::int64_t pair = 0; pair < block.pairs(); ++pair) {
    const std::int8_t* first =
        b.codes + (block.first_depth + 2 * pair) * b.stride + block.first_column;
    const std::int8_t* second = 2 * pair + 1 < block.depth ? first + b.stride : kZeros;
    zip_rows(first, second, block.columns, row);
    std::int64_t column = 0;
    for (; column + kTileColumns <= block.columns; column += kTileColumns) {
      __builtin_memcpy(block.at(pair, column), row + column, sizeof(std::int32_t) * kTileColumns);
    }
    for (; column < block.columns; ++column) *block.at(pair, column) = row[column];
    for (; column % kTileColumns != 0; ++column) *block.at(pair, column) = 0;
  }
}

inline void fill_columns(const Int8Matrix& b, const PairBlock& block) {
  alignas(64) std::int32_t rows[8][kPairs];
  const std::int8_t* from = b.codes + block.first_column * b.stride + block.first_depth;
  const std::int64_t pairs = block.pairs();
  const std::int64_t whole = (block.columns + kTileColumns - 1) / kTileColumns * kTileColumns;
  for (std::int64_t column = 0; column < whole; column += 8) {
    for (std::int64_t i = 0; i < 8; ++i) {
      if (column + i < block.columns) {
        widen_row(from + (column + i) * b.stride, block.depth, rows[i]);
      } else {
        __builtin_memset(rows[i], 0, sizeof(rows[i]));
      }
    }
    std::int64_t pair = 0;
    if constexpr (kTileColumns % 8 == 0) {
      for (; pair + 8 <= pairs; pair += 8) {
        transpose_8x8(reinterpret_cast<const float*>(&rows[0][pair]), kPairs,
                      reinterpret_cast<float*>(block.at(pair, column)), kTileColumns);
      }
    }
    for (; pair < pairs; ++pair) {
      for (std::int64_t i = 0; i < 8 && column + i < whole; ++i) {
        *block.at(pair, column + i) = rows[i][pair];
      }
    }
  }
}

// Rows of A against panels of B. Direct: a row's pairs side by side, rows kPairs apart; else
// (pairs, kTileRows).
struct PairSliver {
  const std::int32_t* a;
  std::int64_t pairs;
  const std::int32_t* panel;
  float* c;
  std::int64_t c_stride;
  std::int64_t columns;
  bool begins;           // sums begin with 0, not with what C holds as i32
  bool ends;             // sums leave as floats
  const float* a_scale;  // of the first row
  bool a_each;
  const float* b_scale;  // of the first column
  bool b_each;
};

template <int kRows, bool kDirect>
__attribute__((noinline)) void pairs_times_panels(const PairSliver& sliver) {
  const F32 d;
  const I32 di;
  constexpr std::int64_t kRowStep = kDirect ? kPairs : 1;
  constexpr std::int64_t kPairStep = kDirect ? 1 : kTileRows;
  const std::int32_t* b = sliver.panel;
  for (std::int64_t column = 0; column < sliver.columns; column += kTileColumns) {
    float* c = sliver.c + column;
    const std::int64_t rest = sliver.columns - column;
    const auto lanes = [&](int v) HONE_LAMBDA {
      const std::int64_t left = rest - v * static_cast<std::int64_t>(kLanes);
      return static_cast<std::size_t>(
          std::clamp<std::int64_t>(left, 0, static_cast<std::int64_t>(kLanes)));
    };
    const bool full = rest >= kTileColumns;
    VecI32 sums[kRows][kTileVectors];
    HONE_UNROLL for (int row = 0; row < kRows; ++row) {
      HONE_UNROLL for (int v = 0; v < kTileVectors; ++v) {
        const float* from = c + row * sliver.c_stride + v * static_cast<std::ptrdiff_t>(kLanes);
        if (sliver.begins) {
          sums[row][v] = hn::Zero(di);
        } else {
          sums[row][v] = hn::BitCast(di, full ? hn::LoadU(d, from) : load_first(from, lanes(v)));
        }
      }
    }
    const std::int32_t* a = sliver.a;
    for (std::int64_t pair = 0; pair < sliver.pairs; ++pair) {
      VecI32 right[kTileVectors];
      HONE_UNROLL for (int v = 0; v < kTileVectors; ++v) {
        right[v] = hn::LoadU(di, b + v * static_cast<std::ptrdiff_t>(kLanes));
      }
      HONE_UNROLL for (int row = 0; row < kRows; ++row) {
        const VecI32 left = hn::Set(di, a[row * kRowStep]);
        HONE_UNROLL for (int v = 0; v < kTileVectors; ++v) {
          sums[row][v] = add_pairs(left, right[v], sums[row][v]);
        }
      }
      a += kPairStep;
      b += kTileColumns;
    }
    HONE_UNROLL for (int row = 0; row < kRows; ++row) {
      const VecF32 row_scale = hn::Set(d, sliver.a_scale[sliver.a_each ? row : 0]);
      HONE_UNROLL for (int v = 0; v < kTileVectors; ++v) {
        float* to = c + row * sliver.c_stride + v * static_cast<std::ptrdiff_t>(kLanes);
        const float* scales = sliver.b_scale + column + v * static_cast<std::ptrdiff_t>(kLanes);
        VecF32 value = hn::BitCast(d, sums[row][v]);
        if (sliver.ends) {
          const VecF32 scale = !sliver.b_each ? hn::Set(d, *sliver.b_scale)
                               : full         ? hn::LoadU(d, scales)
                                              : load_first(scales, lanes(v));
          value = hn::Mul(hn::ConvertTo(d, sums[row][v]), hn::Mul(row_scale, scale));
        }
        if (full) {
          hn::StoreU(value, d, to);
        } else {
          store_first(value, to, lanes(v));
        }
      }
    }
  }
}

template <int kMost, bool kDirect>
HONE_INLINE void visit_pairs(std::int64_t rows, const PairSliver& sliver) {
  if constexpr (kMost > 1) {
    if (rows < kMost) {
      visit_pairs<kMost - 1, kDirect>(rows, sliver);
      return;
    }
  }
  pairs_times_panels<kMost, kDirect>(sliver);
}

// (depth, M) of the transposed A into (pairs, kTileRows).
inline void pack_pairs(const Int8Matrix& a, std::int64_t first_row, std::int64_t rows,
                       std::int64_t first_depth, std::int64_t depth, std::int32_t* out) {
  const std::int8_t* from = a.codes + first_depth * a.stride + first_row;
  for (std::int64_t k = 0; k < depth; k += 2) {
    const std::int8_t* second = from + a.stride;
    if (k + 1 < depth) {
      for (std::int64_t row = 0; row < rows; ++row) out[row] = pair_of(from[row], second[row]);
    } else {
      for (std::int64_t row = 0; row < rows; ++row) out[row] = pair_of(from[row], 0);
    }
    from += 2 * a.stride;
    out += kTileRows;
  }
}

}  // namespace

void int8_gemm(const Int8GemmTask& task) {
  if (task.row_count <= 0) return;
  auto* const panels = reinterpret_cast<std::int32_t*>(task.scratch.data());
  std::int32_t* const packed = panels + kPairs * kPairColumns;
  const std::int64_t end_column = task.first_column + task.column_count;
  const std::int64_t end_row = task.first_row + task.row_count;
  for (std::int64_t column = task.first_column; column < end_column; column += kPairColumns) {
    const std::int64_t columns = std::min(kPairColumns, end_column - column);
    for (std::int64_t k = 0; k < task.depth; k += kPairDepth) {
      const PairBlock block{k, std::min(kPairDepth, task.depth - k), column, columns, panels};
      if (task.b.transposed) {
        fill_columns(task.b, block);
      } else {
        fill_rows(task.b, block);
      }
      for (std::int64_t row = task.first_row; row < end_row; row += kTileRows) {
        const std::int64_t rows = std::min<std::int64_t>(kTileRows, end_row - row);
        const PairSliver sliver{packed,
                                block.pairs(),
                                panels,
                                task.c + row * task.c_stride + column,
                                task.c_stride,
                                columns,
                                k == 0,
                                k + kPairDepth >= task.depth,
                                task.a.scales + (task.a.each ? row : 0),
                                task.a.each,
                                task.b.scales + (task.b.each ? column : 0),
                                task.b.each};
        if (task.a.transposed) {
          pack_pairs(task.a, row, rows, k, block.depth, packed);
          visit_pairs<kTileRows, false>(rows, sliver);
        } else {
          for (std::int64_t i = 0; i < rows; ++i) {
            widen_row(task.a.codes + (row + i) * task.a.stride + k, block.depth,
                      packed + i * kPairs);
          }
          visit_pairs<kTileRows, true>(rows, sliver);
        }
      }
    }
  }
}

}  // namespace hone::kernels::HONE_ISA_NAMESPACE

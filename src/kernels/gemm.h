// Dense products for training: C (M, N) = A (M, D) times B (D, N), where B may be weights of any
// type as they lie in memory: they are decoded a cache-sized panel at a time.
// SPDX-License-Identifier: Apache-2.0
//
// Shapes: M rows, N columns, D the depth, over which products are summed. Every result is one chain
// of f32 fused multiply-adds in the order of the depth, beginning with 0 (or with C, to
// accumulate): its bits depend neither on the share that a call computes, nor on the tile, nor on
// the instruction set, and they are those of matmul_f32 (matmul.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/random.h"
#include "kernels/packed.h"

namespace hone::kernels {

// A matrix of numbers or weights, stored as (rows, columns).
struct GemmMatrix {
  DType dtype = DType::kF32;
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  bool packed = false;  // rows16 (packed.h); else row-major, as in a file
  std::span<const std::byte> bytes;
  // Of scaled weights: each is multiplied by factor_base plus its factor, (rows, columns /
  // factor_columns); factor_columns is a multiple of 32. None: as they are.
  const float* factors = nullptr;
  std::int64_t factor_columns = 0;
  float factor_base = 0;
  // Instead of bytes: the elements of this direction, +1 and -1, row after row, drawn where they
  // are multiplied. Row-major; as the right operand of a transposed product only.
  const DirectionKey* signs = nullptr;
};

// B borders of shares lie at multiples of this, the columns of a unit of packed weights.
inline constexpr std::int64_t kGemmGranule = 32;

// What a call needs beside its operands: a block of B's panels and of A's slivers. Aligned
// to 64 bytes.
inline constexpr std::size_t kGemmScratchBytes = std::size_t{384} << 10;

struct GemmTask {
  std::int64_t rows = 0;     // M
  std::int64_t columns = 0;  // N
  std::int64_t depth = 0;    // D
  const float* a = nullptr;  // (M, D), or (D, M) where transposed
  std::size_t a_stride = 0;  // floats between stored rows
  bool a_transposed = false;
  GemmMatrix b;               // (D, N), or (N, D) where transposed
  bool b_transposed = false;  // the forward direction: a weight's rows are the columns of C
  float* c = nullptr;         // (M, N)
  std::size_t c_stride = 0;   // floats between rows
  bool accumulate = false;    // add to C instead of replacing it
  // The share of C that this call computes; first_column is a multiple of kGemmGranule, as is
  // column_count unless the share ends with the last column.
  std::int64_t first_row = 0;
  std::int64_t row_count = 0;
  std::int64_t first_column = 0;
  std::int64_t column_count = 0;
  std::span<std::byte> scratch;  // kGemmScratchBytes of this thread
};

// Thread `thread` of `threads`' share of C, the whole of it if threads is 1: parts of the longer
// side, so that no thread decodes what another one does unless C is narrow.
void set_gemm_share(GemmTask& task, int thread, int threads);

// Whether gemm_f32 takes this matrix: every type with a packed form, whole blocks along a row.
bool takes_gemm(DType dtype, std::int64_t rows, std::int64_t columns);

}  // namespace hone::kernels

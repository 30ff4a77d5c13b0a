// Products of int8 codes for training: C (M, N) = A (M, D) times B (D, N), summed exactly.
// SPDX-License-Identifier: Apache-2.0
//
// Result: float(sum of code products) * (A's scale * B's scale). The sum is an i32, so its bits
// depend on nothing; the float step is one order on every instruction set.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace hone::kernels {

// Codes are in [-127, 127]; so many products of them fit into an i32.
inline constexpr std::int64_t kInt8MostDepth = std::int64_t{1} << 17;

struct Int8Matrix {
  const std::int8_t* codes = nullptr;  // row-major, rows `stride` apart
  std::int64_t stride = 0;
  bool transposed = false;        // of A: stored (D, M); of B: stored (N, D)
  const float* scales = nullptr;  // one for each row of A or column of B, or one for all
  bool each = false;
};

// What a call needs beside its operands: B's panel and A's sliver. Aligned to 64 bytes.
inline constexpr std::size_t kInt8GemmScratchBytes = std::size_t{320} << 10;

struct Int8GemmTask {
  std::int64_t rows = 0;     // M
  std::int64_t columns = 0;  // N
  std::int64_t depth = 0;    // D, at most kInt8MostDepth
  Int8Matrix a, b;
  float* c = nullptr;
  std::int64_t c_stride = 0;  // floats between rows
  // The share of C that this call computes.
  std::int64_t first_row = 0;
  std::int64_t row_count = 0;
  std::int64_t first_column = 0;
  std::int64_t column_count = 0;
  std::span<std::byte> scratch;  // kInt8GemmScratchBytes of this thread
};

// Thread `thread` of `threads`' share of C; the whole of it if threads is 1.
void set_int8_share(Int8GemmTask& task, int thread, int threads);

}  // namespace hone::kernels

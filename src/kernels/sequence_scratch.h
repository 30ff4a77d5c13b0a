// How the scratch of sequence attention is divided: the same for those who size it and those who
// use it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/sequence_attention.h"

namespace hone::kernels {

// Floats between rows of score tiles: of a line more than a power of two, so that a column of rows
// does not fall into one set of the cache.
inline constexpr std::size_t kScoreStride = kSequenceQueries + 16;

// D below is the head size rounded up to 32, the widest panel. What is "across" stands in panels of
// as many queries as two vectors hold, [panel][D][lanes]; what is "along" in panels of as many
// dimensions, [panel][row][lanes].
struct SequenceScratch {
  float* queries_across = nullptr;  // [kSequenceQueries][D], times what makes them exponents of 2
  float* d_out_across = nullptr;    // [kSequenceQueries][D]
  float* queries_along = nullptr;   // [D][kSequenceQueries], times scale
  float* d_out_along = nullptr;     // [D][kSequenceQueries]
  float* rows_along = nullptr;      // [D][kSequenceKeys]: values forward, keys backward
  float* sums = nullptr;            // [kSequenceQueries][D]: out, or d_queries
  float* weights = nullptr;         // [kSequenceKeys][kScoreStride]
  float* d_scores = nullptr;        // [kSequenceKeys][kScoreStride]
  float* state = nullptr;           // [4][kSequenceQueries]
  std::size_t bytes = 0;            // of all of it, alignment included
};

// Inlined everywhere: units of several instruction sets use it.
[[gnu::always_inline]] inline SequenceScratch divide_sequence_scratch(std::byte* memory,
                                                                      std::size_t head_size) {
  const auto address = reinterpret_cast<std::uintptr_t>(memory);
  const std::uintptr_t begin = (address + 63) / 64 * 64;
  std::uintptr_t next = begin;
  const auto take = [&next](std::size_t floats) __attribute__((always_inline)) {
    const std::uintptr_t at = next;
    next += floats * sizeof(float);
    return reinterpret_cast<float*>(at);
  };
  const std::size_t dims = (head_size + 31) / 32 * 32;
  SequenceScratch parts;
  parts.queries_across = take(kSequenceQueries * dims);
  parts.d_out_across = take(kSequenceQueries * dims);
  parts.queries_along = take(kSequenceQueries * dims);
  parts.d_out_along = take(kSequenceQueries * dims);
  parts.rows_along = take(kSequenceKeys * dims);
  parts.sums = take(kSequenceQueries * dims);
  parts.weights = take(kSequenceKeys * kScoreStride);
  parts.d_scores = take(kSequenceKeys * kScoreStride);
  parts.state = take(4 * kSequenceQueries);
  parts.bytes = next - begin + 64;
  return parts;
}

}  // namespace hone::kernels

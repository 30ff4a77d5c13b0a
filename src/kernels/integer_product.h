// Products of small integers, summed exactly: rows of 16-bit values times packed 8-bit weights.
// Integer instructions only.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace hone::kernels {

// Weights (R, D) are packed in panels of so many rows, and pairs along the depth.
inline constexpr std::size_t kIntegerPanel = 8;

inline constexpr std::size_t integer_pairs(std::size_t depth) { return (depth + 1) / 2; }
// Words of packed weights of (rows, depth).
inline constexpr std::size_t integer_words(std::size_t rows, std::size_t depth) {
  return (rows + kIntegerPanel - 1) / kIntegerPanel * kIntegerPanel * integer_pairs(depth);
}

// Two values as one word, the first in the low half.
inline std::int32_t integer_pair(std::int16_t first, std::int16_t second) {
  return static_cast<std::int32_t>(static_cast<std::uint32_t>(static_cast<std::uint16_t>(first)) |
                                   static_cast<std::uint32_t>(static_cast<std::uint16_t>(second))
                                       << 16);
}

// Where the pair (2 p, 2 p + 1) of row r stands among the words.
inline constexpr std::size_t integer_place(std::size_t row, std::size_t pair, std::size_t pairs) {
  return (row / kIntegerPanel * pairs + pair) * kIntegerPanel + row % kIntegerPanel;
}

// out (N, R) = x (N, D) times w (R, D) transposed; |x| and |w| at most 255, D at most 2^15.
struct IntegerProductTask {
  const std::int16_t* x = nullptr;  // (N, 2 pairs), an odd depth with a zero behind it
  const std::int32_t* w = nullptr;  // packed
  std::size_t rows = 0;             // N
  std::size_t outputs = 0;          // R
  std::size_t pairs = 0;
  std::int32_t* out = nullptr;  // (N, R)
};

}  // namespace hone::kernels

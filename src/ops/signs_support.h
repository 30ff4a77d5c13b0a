// What ops over random signs share: their key as an operand.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

#include "base/random.h"
#include "ops/support.h"

namespace hone::ops {

// (4) i32: low and high word of the seed, step, direction.
inline bool is_signs_key(const Type& type) { return is_indices(type) && type.shape[0] == 4; }

template <typename T>
DirectionKey signs_key(const T& words, std::int64_t tensor) {
  const auto word = [&](std::size_t i) {
    return static_cast<std::uint32_t>(static_cast<std::int32_t>(words[i]));
  };
  return {word(0) | std::uint64_t{word(1)} << 32, word(2), word(3),
          static_cast<std::uint32_t>(tensor)};
}

inline double sign_of(const DirectionKey& key, std::int64_t element) {
  const auto words = direction_draw(key, static_cast<std::uint32_t>(element / kSignsOfDraw));
  const auto bit = static_cast<std::uint32_t>(element % kSignsOfDraw);
  return ((words[bit / 32] >> (bit % 32)) & 1) != 0 ? -1.0 : 1.0;
}

inline ExampleOperand signs_key_example() {
  return {tensor_type({4}, DType::kI32), Fill::kIota, 0, {7, 1, 3, 2}};
}

}  // namespace hone::ops

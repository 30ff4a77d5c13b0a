// Which elements a dropout keeps: the op's reference and its lowering draw alike.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/random.h"

namespace hone::ops {

struct DropoutDraw {
  std::uint64_t key = 0;
  std::uint32_t stream = 0;
  std::uint32_t threshold = 0;  // draws below it are dropped
  float factor = 1;             // of what is kept
};

inline DropoutDraw dropout_draw(double part, std::int64_t stream, std::int32_t seed,
                                std::int32_t step) {
  return {
      (std::uint64_t{static_cast<std::uint32_t>(seed)} << 32) | static_cast<std::uint32_t>(step),
      static_cast<std::uint32_t>(stream), static_cast<std::uint32_t>(part * 4294967296.0),
      static_cast<float>(1.0 / (1.0 - part))};
}

// Draws for the elements 4 * block .. 4 * block + 3.
inline std::array<std::uint32_t, 4> dropout_block(const DropoutDraw& draw, std::size_t block) {
  return philox({static_cast<std::uint32_t>(block),
                 static_cast<std::uint32_t>(std::uint64_t{block} >> 32), draw.stream, 0x64726f70},
                draw.key);
}

inline bool dropout_keeps(const DropoutDraw& draw, std::size_t element) {
  return dropout_block(draw, element / 4)[element % 4] >= draw.threshold;
}

}  // namespace hone::ops

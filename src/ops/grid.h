// Symmetric integer grids: what the ops that round share. The arithmetic is the kernels', in f32,
// so that references give the same codes.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstddef>
#include <span>

#include "ops/support.h"

namespace hone::ops {

// An i32 holds the sum of so many products of codes in [-127, 127].
inline constexpr std::int64_t kMostCodesDepth = std::int64_t{1} << 17;

// x ~ scale * code, |code| <= 2^(bits - 1) - 1, scale = largest |x| / that (round to nearest, ties
// to even). Below 2^-100 everything counts as 0.
struct Grid {
  float scale = 0;
  float inverse = 0;

  float code(double x) const { return std::nearbyint(static_cast<float>(x) * inverse); }
};

inline Grid grid_of(float largest, std::int64_t bits) {
  const auto most = static_cast<float>((std::int64_t{1} << (bits - 1)) - 1);
  if (largest < 0x1p-100F) return {};
  return {largest / most, most / largest};
}

}  // namespace hone::ops

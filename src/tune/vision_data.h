// Examples for small vision networks: turned images, and clouds of points from formulas.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tune/images.h"

namespace hone::tune {

struct VisionData {
  std::int64_t width = 0;             // floats of an example
  std::vector<float> features;        // (N, width)
  std::vector<std::int32_t> targets;  // (N)

  std::int64_t count() const { return std::ssize(targets); }
  // Examples order[first] … as one batch.
  VisionData batch(std::span<const std::size_t> order, std::size_t first, std::size_t count) const;
};

// The first `most` images, turned about their middle by `degrees` counterclockwise; each pixel
// comes from between four, what lies outside is 0.
VisionData image_data(const Images& images, std::int64_t most, double degrees = 0);

// Eight surfaces, `points` points each: sphere, cube, torus, cylinder, cone, helix, plane,
// ellipsoid. Uniform in each surface's parameters, turned about z at random, sizes between 0.8 and
// 1.2, Gaussian noise of 0.02 on every coordinate.
inline constexpr std::int64_t kCloudClasses = 8;
VisionData cloud_data(std::int64_t count, std::int64_t points, std::uint64_t seed);

// 0 … count - 1 in an order drawn from (seed, epoch).
std::vector<std::size_t> shuffled(std::int64_t count, std::uint64_t seed, std::uint64_t epoch);

}  // namespace hone::tune

// SPDX-License-Identifier: Apache-2.0
#include "tune/vision_data.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <numeric>

#include "base/random.h"

namespace hone::tune {
namespace {

using Point = std::array<double, 3>;
constexpr double kTurn = 2 * std::numbers::pi;

Point on_cube(Random& random) {
  const std::uint32_t face = random.below(6);
  Point point = {2.0 * random.uniform() - 1, 2.0 * random.uniform() - 1,
                 2.0 * random.uniform() - 1};
  point[face / 2] = face % 2 == 0 ? 1 : -1;
  return point;
}

// u is an angle, t in [0, 1).
Point on_surface(std::int32_t shape, double u, double t, Random& random) {
  const double z = 2 * t - 1;
  const double ring = std::sqrt(1 - z * z);
  switch (shape) {
    case 0: return {ring * std::cos(u), ring * std::sin(u), z};
    case 1: return on_cube(random);
    case 2: {
      const double out = 0.7 + 0.3 * std::cos(kTurn * t);
      return {out * std::cos(u), out * std::sin(u), 0.3 * std::sin(kTurn * t)};
    }
    case 3: return {std::cos(u), std::sin(u), z};
    case 4: return {(1 - t) * std::cos(u), (1 - t) * std::sin(u), z};
    case 5: return {std::cos(3 * kTurn * t), std::sin(3 * kTurn * t), z};
    case 6: return {z, 2.0 * random.uniform() - 1, 0};
    default: return {ring * std::cos(u), 0.5 * ring * std::sin(u), 0.4 * z};
  }
}

float pixel(std::span<const float> image, std::int64_t height, std::int64_t width, std::int64_t row,
            std::int64_t column) {
  if (row < 0 || row >= height || column < 0 || column >= width) return 0;
  return image[static_cast<std::size_t>(row * width + column)];
}

}  // namespace

VisionData VisionData::batch(std::span<const std::size_t> order, std::size_t first,
                             std::size_t count) const {
  VisionData out{width, {}, {}};
  const auto floats = static_cast<std::size_t>(width);
  for (const std::size_t index : order.subspan(first, count)) {
    const auto example = std::span(features).subspan(index * floats, floats);
    out.features.insert(out.features.end(), example.begin(), example.end());
    out.targets.push_back(targets[index]);
  }
  return out;
}

VisionData image_data(const Images& images, std::int64_t most, double degrees) {
  const std::int64_t height = images.height, width = images.width;
  VisionData out{height * width, {}, {}};
  const double angle = degrees / 360 * kTurn;
  const double across = std::cos(angle), along = std::sin(angle);
  for (std::int64_t i = 0; i < std::min(most, images.count()); ++i) {
    const auto image = images.image(i);
    out.targets.push_back(images.labels[static_cast<std::size_t>(i)]);
    if (degrees == 0) {
      out.features.insert(out.features.end(), image.begin(), image.end());
      continue;
    }
    for (std::int64_t at = 0; at < height * width; ++at) {
      const double y = static_cast<double>(at / width) - 0.5 * static_cast<double>(height - 1);
      const double x = static_cast<double>(at % width) - 0.5 * static_cast<double>(width - 1);
      const double row = along * x + across * y + 0.5 * static_cast<double>(height - 1);
      const double column = across * x - along * y + 0.5 * static_cast<double>(width - 1);
      const auto top = static_cast<std::int64_t>(std::floor(row));
      const auto left = static_cast<std::int64_t>(std::floor(column));
      const auto down = static_cast<float>(row - std::floor(row));
      const auto right = static_cast<float>(column - std::floor(column));
      const auto at_row = [&](std::int64_t r) {
        return (1 - right) * pixel(image, height, width, r, left) +
               right * pixel(image, height, width, r, left + 1);
      };
      out.features.push_back((1 - down) * at_row(top) + down * at_row(top + 1));
    }
  }
  return out;
}

VisionData cloud_data(std::int64_t count, std::int64_t points, std::uint64_t seed) {
  VisionData out{3 * points, {}, {}};
  Random random(seed, 4801);
  for (std::int64_t i = 0; i < count; ++i) {
    const auto shape = static_cast<std::int32_t>(random.below(kCloudClasses));
    out.targets.push_back(shape);
    const double turn = kTurn * random.uniform();
    const double size = 0.8 + 0.4 * random.uniform();
    for (std::int64_t p = 0; p < points; ++p) {
      const double u = kTurn * random.uniform();
      const Point at = on_surface(shape, u, random.uniform(), random);
      const Point turned = {std::cos(turn) * at[0] - std::sin(turn) * at[1],
                            std::sin(turn) * at[0] + std::cos(turn) * at[1], at[2]};
      for (const double x : turned) {
        out.features.push_back(static_cast<float>(size * x) + 0.02F * random.normal());
      }
    }
  }
  return out;
}

std::vector<std::size_t> shuffled(std::int64_t count, std::uint64_t seed, std::uint64_t epoch) {
  std::vector<std::size_t> order(static_cast<std::size_t>(count));
  std::iota(order.begin(), order.end(), std::size_t{0});
  Random random(seed, 9000 + epoch);
  for (std::size_t i = order.size(); i > 1; --i) {
    std::swap(order[i - 1], order[random.below(static_cast<std::uint32_t>(i))]);
  }
  return order;
}

}  // namespace hone::tune

// SPDX-License-Identifier: Apache-2.0
#include "optim/sides.h"

#include <algorithm>

#include "optim/state.h"

namespace hone::optim {
namespace {

void mix(std::span<float> into, std::span<const float> other, float keep, float part) {
  for (std::size_t i = 0; i < into.size(); ++i) into[i] = into[i] * keep + other[i] * part;
}

}  // namespace

Sides sides_of(Shape2 shape, const Settings& settings) {
  if (!shape.is_matrix()) return {};
  const auto limit = static_cast<std::int64_t>(settings.number("limit"));
  return {shape.rows <= limit ? shape.rows : 0, shape.columns <= limit ? shape.columns : 0};
}

void accumulate_sides(std::span<const float> g, Shape2 shape, Sides sides, std::span<float> left,
                      std::span<float> right, float keep, float part) {
  Multiplier multiply;
  const Matrix gradient{g, shape.rows, shape.columns};
  if (sides.rows > 0) {
    std::vector<float> square(left.size());
    multiply(gradient, turned(gradient), square);
    mix(left, square, keep, part);
  }
  if (sides.columns > 0) {
    std::vector<float> square(right.size());
    multiply(turned(gradient), gradient, square);
    mix(right, square, keep, part);
  }
}

std::vector<float> between_sides(const Matrix& left, std::span<const float> x, const Matrix& right,
                                 Shape2 shape, Sides sides) {
  Multiplier multiply;
  std::vector<float> out(x.begin(), x.end());
  std::vector<float> other(x.size());
  if (sides.rows > 0) {
    multiply(left, {out, shape.rows, shape.columns}, other);
    std::swap(out, other);
  }
  if (sides.columns > 0) {
    multiply({out, shape.rows, shape.columns}, right, other);
    std::swap(out, other);
  }
  return out;
}

std::size_t sides_scratch_bytes(Shape2 shape, Sides sides) {
  const std::int64_t longest = std::max(sides.rows, sides.columns);
  return float_bytes(3 * shape.elements() + 3 * longest * longest) + eigen_bytes(longest) +
         Multiplier::bytes();
}

}  // namespace hone::optim

// The two sides of a matrix as shampoo and soap see them: running means of G G^T and G^T G.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "optim/linear.h"
#include "optim/rule.h"

namespace hone::optim {

// A side longer than the rule's `limit` has no factor: its square would not fit, and its
// eigenvectors take about 10 N^3 operations.
struct Sides {
  std::int64_t rows = 0;  // of the left factor; 0 if it has none
  std::int64_t columns = 0;
  int count() const { return (rows > 0 ? 1 : 0) + (columns > 0 ? 1 : 0); }
};
// No sides for a vector: the rule falls back to adamw.
Sides sides_of(Shape2 shape, const Settings& settings);

// left = keep left + part g g^T, right = keep right + part g^T g for the sides that there are.
void accumulate_sides(std::span<const float> g, Shape2 shape, Sides sides, std::span<float> left,
                      std::span<float> right, float keep, float part);

// left x right; a side without a factor is the identity.
std::vector<float> between_sides(const Matrix& left, std::span<const float> x, const Matrix& right,
                                 Shape2 shape, Sides sides);

// Scratch of the functions above at its highest.
std::size_t sides_scratch_bytes(Shape2 shape, Sides sides);

}  // namespace hone::optim

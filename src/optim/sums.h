// Sums over floats in double, in an order that depends on the length alone.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <span>

namespace hone::optim {

// The sum of term(i) for i in [0, count): eight running sums, element i into sum i % 8.
template <typename Term>
double sum_of(std::size_t count, Term term) {
  std::array<double, 8> sums{};
  std::size_t i = 0;
  for (; i + 8 <= count; i += 8) {
    for (std::size_t j = 0; j < 8; ++j) sums[j] += term(i + j);
  }
  for (std::size_t j = 0; i + j < count; ++j) sums[j] += term(i + j);
  return ((sums[0] + sums[4]) + (sums[1] + sums[5])) + ((sums[2] + sums[6]) + (sums[3] + sums[7]));
}

inline double sum_of_squares(std::span<const float> x) {
  return sum_of(x.size(), [x](std::size_t i) { return static_cast<double>(x[i]) * x[i]; });
}

inline double dot(std::span<const float> x, std::span<const float> y) {
  return sum_of(x.size(), [x, y](std::size_t i) { return static_cast<double>(x[i]) * y[i]; });
}

inline double root_mean_square(std::span<const float> x) {
  return x.empty() ? 0.0 : std::sqrt(sum_of_squares(x) / static_cast<double>(x.size()));
}

}  // namespace hone::optim

// SPDX-License-Identifier: Apache-2.0
#include "optim/measure.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/random.h"
#include "optim/linear.h"
#include "optim/sums.h"

namespace hone::optim {
namespace {

double part_of(std::size_t count, std::size_t all) {
  return all == 0 ? 0.0 : static_cast<double>(count) / static_cast<double>(all);
}

double length(std::span<const double> x) {
  double sum = 0.0;
  for (const double value : x) sum += value * value;
  return std::sqrt(sum);
}

}  // namespace

Box box_of(std::span<const float> weights, double weight_decay) {
  Box box;
  std::size_t border = 0;
  for (const float weight : weights) {
    const double magnitude = std::abs(static_cast<double>(weight));
    box.largest = std::max(box.largest, magnitude);
    if (magnitude * weight_decay >= 0.99) ++border;
  }
  box.share = box.largest * weight_decay;
  box.at_border = part_of(border, weights.size());
  return box;
}

double box_envelope(double start, double learning_rate, double weight_decay, std::int64_t steps) {
  if (weight_decay == 0.0) return start + learning_rate * static_cast<double>(steps);
  const double kept = std::pow(1.0 - learning_rate * weight_decay, static_cast<double>(steps));
  return kept * start + (1.0 - kept) / weight_decay;
}

double spectral_norm(std::span<const float> matrix, Shape2 shape, int iterations,
                     double tolerance) {
  const auto rows = static_cast<std::size_t>(shape.rows);
  const auto columns = static_cast<std::size_t>(shape.columns);
  std::vector<double> x(columns), y(rows);
  Random random(0x5eed);
  for (double& value : x) value = random.normal();
  double norm = 0.0;
  for (int i = 0; i < iterations; ++i) {
    const double size = length(x);
    if (size == 0.0) return 0.0;
    for (double& value : x) value /= size;
    for (std::size_t r = 0; r < rows; ++r) {
      const float* row = matrix.data() + r * columns;
      y[r] = sum_of(columns, [&](std::size_t c) { return row[c] * x[c]; });
    }
    const double next = length(y);
    const bool settled = std::abs(next - norm) <= tolerance * next;
    norm = next;
    if (settled) break;
    std::fill(x.begin(), x.end(), 0.0);
    for (std::size_t r = 0; r < rows; ++r) {
      const float* row = matrix.data() + r * columns;
      for (std::size_t c = 0; c < columns; ++c) x[c] += row[c] * y[r];
    }
  }
  return norm;
}

double stable_rank(std::span<const float> matrix, Shape2 shape) {
  const double largest = spectral_norm(matrix, shape);
  return largest == 0.0 ? 0.0 : sum_of_squares(matrix) / (largest * largest);
}

double effective_rank(std::span<const float> matrix, Shape2 shape) {
  const bool wide = shape.rows <= shape.columns;
  const auto side = static_cast<std::size_t>(wide ? shape.rows : shape.columns);
  const auto other = static_cast<std::size_t>(wide ? shape.columns : shape.rows);
  // In double: the root of an eigenvalue's rounding would count as a singular value.
  std::vector<double> square(side * side);
  const auto at = [&](std::size_t i, std::size_t k) -> double {
    return wide ? matrix[i * other + k] : matrix[k * side + i];
  };
  for (std::size_t i = 0; i < side; ++i) {
    for (std::size_t j = 0; j <= i; ++j) {
      square[i * side + j] = square[j * side + i] =
          sum_of(other, [&](std::size_t k) { return at(i, k) * at(j, k); });
    }
  }
  const Eigen eigen = symmetric_eigen(std::move(square), static_cast<std::int64_t>(side));
  double sum = 0.0;
  for (const double value : eigen.values) sum += std::sqrt(std::max(value, 0.0));
  if (sum == 0.0) return 0.0;
  double entropy = 0.0;
  for (const double value : eigen.values) {
    const double share = std::sqrt(std::max(value, 0.0)) / sum;
    if (share > 0.0) entropy -= share * std::log(share);
  }
  return std::exp(entropy);
}

double sparsity(std::span<const float> weights, double threshold) {
  const double border = threshold * root_mean_square(weights);
  const auto small = std::count_if(weights.begin(), weights.end(), [border](float weight) {
    return std::abs(static_cast<double>(weight)) <= border;
  });
  return part_of(static_cast<std::size_t>(small), weights.size());
}

}  // namespace hone::optim

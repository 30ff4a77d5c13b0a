// SPDX-License-Identifier: Apache-2.0
#include "optim/trajectory.h"

#include <algorithm>
#include <cmath>

#include "optim/linear.h"

namespace hone::optim {
namespace {

// Eigenvalues of the Gram matrix below this part of the largest are its rounding.
constexpr double kRounding = 1e-12;

}  // namespace

void Trajectory::add(std::span<const float> point) {
  const auto at = static_cast<std::size_t>(count_ % period_);
  if (at >= points_.size()) points_.resize(at + 1);
  points_[at].assign(point.begin(), point.end());
  ++count_;
  if (count_ % period_ == 0) decompose();
}

void Trajectory::forget_last() {
  if (count_ > 0) --count_;
}

// X (points, d) = U S V^T by the smaller Gram matrix X X^T: v_k = X^T u_k / s_k.
void Trajectory::decompose() {
  const std::size_t points = points_.size(), size = points_[0].size();
  std::vector<std::vector<double>> x(points, std::vector<double>(size));
  for (std::size_t column = 0; column < size; ++column) {
    double mean = 0, square = 0;
    for (const auto& point : points_) mean += double{point[column]};
    mean /= static_cast<double>(points);
    for (const auto& point : points_) square += std::pow(double{point[column]} - mean, 2);
    const double deviation = std::sqrt(square / static_cast<double>(points));
    for (std::size_t i = 0; i < points; ++i) {
      x[i][column] = (double{points_[i][column]} - mean) / (deviation > 0 ? deviation : 1);
    }
  }
  std::vector<double> gram(points * points);
  for (std::size_t i = 0; i < points; ++i) {
    for (std::size_t j = 0; j <= i; ++j) {
      gram[i * points + j] = gram[j * points + i] = dot(x[i], x[j]);
    }
  }
  const Eigen eigen = symmetric_eigen(std::move(gram), static_cast<std::int64_t>(points));
  double total = 0;
  for (const double value : eigen.values) total += std::max(value, 0.0);
  removed_.clear();
  double held = 0;
  for (std::size_t k = 0; k < points; ++k) {
    const double value = eigen.values[k];
    if (value <= kRounding * eigen.values[0]) break;
    const bool enough = held > kept_ * total;
    held += value;
    if (!enough) continue;
    std::vector<double>& direction = removed_.emplace_back(size, 0.0);
    for (std::size_t i = 0; i < points; ++i) {
      add_multiple(eigen.vectors[k * points + i] / std::sqrt(value), x[i], direction);
    }
  }
}

void Trajectory::project(std::span<float> gradient) const {
  const std::vector<double> before(gradient.begin(), gradient.end());
  std::vector<double> after = before;
  for (const auto& direction : removed_) {
    add_multiple(-dot(before, direction), direction, after);
  }
  for (std::size_t j = 0; j < after.size(); ++j) gradient[j] = static_cast<float>(after[j]);
}

}  // namespace hone::optim

// SPDX-License-Identifier: Apache-2.0
#include "optim/clip.h"

#include <algorithm>
#include <cmath>

#include "optim/sums.h"

namespace hone::optim {

double squared_norm(std::span<const float> tensor) { return sum_of_squares(tensor); }

double global_norm_of(std::span<const double> squared_norms) {
  double sum = 0.0;
  for (const double squares : squared_norms) sum += squares;
  return std::sqrt(sum);
}

double global_norm(Tensors tensors) {
  double sum = 0.0;
  for (const std::span<const float> tensor : tensors) sum += squared_norm(tensor);
  return std::sqrt(sum);
}

double clip_factor(double norm, double largest) {
  if (!std::isfinite(norm)) return 0.0;
  if (!(largest > 0.0)) return 1.0;
  return std::min(1.0, largest / (norm + 1e-6));
}

std::size_t clip_values(std::span<float> gradient, float largest) {
  std::size_t beyond = 0;
  for (float& value : gradient) {
    if (std::abs(value) > largest) {
      value = std::copysign(largest, value);
      ++beyond;
    }
  }
  return beyond;
}

}  // namespace hone::optim

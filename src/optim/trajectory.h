// Directions along which parameters have hardly moved, taken out of noisy gradients (ZOODiP: Kim et
// al. 2025, section 4.2).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace hone::optim {

// Of one vector of d numbers. After every `period` points their standardized coordinates are
// decomposed into principal components; those behind the first that together hold `kept` of the
// variance are taken out of gradients until the next time. Directions that the points do not span
// stay.
class Trajectory {
 public:
  explicit Trajectory(std::int64_t period, double kept = 0.999) : period_(period), kept_(kept) {}

  // Where the parameters are now.
  void add(std::span<const float> point);
  // The last point never was.
  void forget_last();
  void project(std::span<float> gradient) const;
  std::int64_t removed() const { return static_cast<std::int64_t>(removed_.size()); }

 private:
  void decompose();

  std::int64_t period_;
  double kept_;
  std::int64_t count_ = 0;                    // of points since the beginning
  std::vector<std::vector<float>> points_;    // the last `period`, point i at i mod period
  std::vector<std::vector<double>> removed_;  // orthonormal
};

}  // namespace hone::optim

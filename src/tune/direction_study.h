// How much a direction is worth: the experiments behind the defaults of forward passes.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "tune/choice_study.h"

namespace hone::tune {

// What is tried: `job` as of `hone tune --method zo`, and the arithmetic of the products.
struct DirectionTrial {
  JobOptions job;
  engine::Arithmetic arithmetic = engine::Arithmetic::kInteger;
  std::int64_t questions = 16;  // of the study's training examples
  std::uint64_t seed = 1;
};

// Derivatives of the loss at the model itself along the trial's directions.
Result<std::vector<double>> derivatives_of(const ChoiceStudy& study, const DirectionTrial& trial);

// The best step along one direction, d^2 / (2 c) with the curvature c by a pair of losses, in nats:
// the median over the trial's directions (those that bend down count as the median's worst, 0).
// And the median seconds of an estimate.
struct DirectionWorth {
  double decrease = 0;
  double seconds = 0;
  double elements = 0;  // that move
};
Result<DirectionWorth> worth_of(const ChoiceStudy& study, const DirectionTrial& trial);

}  // namespace hone::tune

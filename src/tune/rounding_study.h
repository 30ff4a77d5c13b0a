// Small models that differ in how they were trained alone, and what rounding to few bits costs
// each.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "base/status.h"
#include "tune/block_probe.h"
#include "tune/small_training.h"

namespace hone::tune {

struct RoundedModel {
  SmallTraining how;
  std::int64_t steps = 0;
  bool reached = false;  // the target
  RoundingProbe probe;
  double last() const { return probe.blocks.back().total; }  // R_L
};

struct RoundingStudy {
  ThreadPool& pool;
  const ByteText& text;
  SmallModelOptions size;
  passes::QatOptions rounding;
  std::uint64_t seed = 1;    // of the weights
  std::int64_t batches = 4;  // of held-out losses

  // Trained in f32, then rounded to nearest.
  Result<RoundedModel> round_after(const SmallTraining& how) const;
  // Held-out loss, rounded, of a model that took as many steps with rounded weights and inputs from
  // the first one on.
  Result<double> loss_of_aware(const RoundedModel& plain) const;
};

}  // namespace hone::tune

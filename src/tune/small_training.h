// A training run of the small model, from new weights to the loss on what was held out.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>

#include "base/status.h"
#include "optim/schedule.h"
#include "tune/small_model.h"

namespace hone::tune {

struct SmallTraining {
  SmallModelOptions model;
  std::string_view rule = "adamw", settings;  // of optim
  optim::Schedule schedule;
  double decay = 0, clip = 1;
  std::int64_t held_out_batches = 32;
  std::uint64_t seed = 1;  // of weights and batches
};

// Nats a byte.
Result<double> trained_loss(ThreadPool& pool, const ByteText& text, const SmallTraining& training);

}  // namespace hone::tune

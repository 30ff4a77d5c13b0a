// Trains a small model with any update rule in any arithmetic, for so many steps or down to a loss.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "optim/schedule.h"
#include "tune/small_model.h"

namespace hone::tune {

struct SmallTraining {
  std::string_view rule = "adamw";
  double learning_rate = 1e-3;
  std::int64_t steps = 100;
  std::int64_t warmup = 20;  // steps in which the rate rises
  bool decays = true;        // linear to zero at the last step
  double clip = 1;
  // Stops where the running mean of the loss is there; 0: runs all steps.
  double target = 0;
};

struct SmallCurve {
  std::vector<double> losses;  // of each step, in nats a byte
  double running = 0;          // mean over about the last ten steps
  bool reached = false;        // the target
};

// Error: kUnsupported where a loss is not finite, with the step.
Result<SmallCurve> train_small(SmallModel& model, const ByteText& text,
                               const Arithmetic& arithmetic, const SmallTraining& how);

// A whole run, from new weights to the loss on what was held out.
struct SmallRun {
  SmallModelOptions model;
  std::string_view rule = "adamw", settings;  // of optim
  optim::Schedule schedule = {};
  double decay = 0, clip = 1;
  std::int64_t held_out_batches = 32;
  std::uint64_t seed = 1;  // of weights and batches
};

// Nats a byte.
Result<double> trained_loss(ThreadPool& pool, const ByteText& text, const SmallRun& run);

// The model with one loud channel: before every linear layer column `channel` of the input times
// `factor`, of the weight divided by it. A factor that is a power of two changes no bit of what
// f32 computes, in training neither; what rounds by a common scale loses the quiet channels.
Result<ir::Graph> with_loud_channel(const ir::Graph& graph, std::int64_t channel, double factor);

}  // namespace hone::tune

// The learning rate of a step: warm-up, then constant, linear, cosine, or stable and a decay.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>

#include "base/status.h"

namespace hone::optim {

enum class ScheduleKind : std::uint8_t {
  kConstant,
  kLinear,             // straight to final_part at the end
  kCosine,             // half a cosine to final_part (Loshchilov & Hutter 2017, eq. 5, no restarts)
  kWarmupStableDecay,  // constant, in the last decay_steps straight to final_part (Hu et al. 2024)
};

// Steps count from 1, and `steps` is the last one.
struct Schedule {
  ScheduleKind kind = ScheduleKind::kConstant;
  double learning_rate = 1e-3;    // the peak
  std::int64_t steps = 1;         // of the whole run
  std::int64_t warmup_steps = 0;  // step s of them has s / warmup_steps of the peak
  std::int64_t decay_steps = 0;   // of kWarmupStableDecay; 0: a tenth of the run (Hu et al. 2024)
  double final_part = 0.0;        // of the peak, that the decay would reach at step `steps` + 1
};

// Past the last step the rate stays at final_part of the peak (a constant one at its peak).
double scheduled(const Schedule& schedule, std::int64_t step);

// "constant", "linear", "cosine", "wsd" (or "warmup-stable-decay").
Result<ScheduleKind> schedule_named(std::string_view name);
std::string_view schedule_name(ScheduleKind kind);

// Warm-up and decay within the run, a positive finite rate, a part of [0, 1].
Status check_schedule(const Schedule& schedule);

}  // namespace hone::optim

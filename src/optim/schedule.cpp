// SPDX-License-Identifier: Apache-2.0
#include "optim/schedule.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <utility>
#include <vector>

#include "base/nearest.h"

namespace hone::optim {
namespace {

// The first name is the one that is printed.
constexpr std::array<std::pair<std::string_view, ScheduleKind>, 5> kNames = {{
    {"constant", ScheduleKind::kConstant},
    {"linear", ScheduleKind::kLinear},
    {"cosine", ScheduleKind::kCosine},
    {"wsd", ScheduleKind::kWarmupStableDecay},
    {"warmup-stable-decay", ScheduleKind::kWarmupStableDecay},
}};

std::int64_t decay_begin(const Schedule& schedule) {
  if (schedule.kind != ScheduleKind::kWarmupStableDecay) return schedule.warmup_steps;
  const std::int64_t tenth = std::max<std::int64_t>(1, schedule.steps / 10);
  const std::int64_t length = schedule.decay_steps > 0 ? schedule.decay_steps : tenth;
  return std::max(schedule.warmup_steps, schedule.steps - length);
}

Error invalid(std::string what, std::string found, std::string expected) {
  Error error;
  error.code = ErrorCode::kInvalidArgument;
  error.what = std::move(what);
  error.found = std::move(found);
  error.expected = std::move(expected);
  return error;
}

}  // namespace

double scheduled(const Schedule& schedule, std::int64_t step) {
  if (step <= schedule.warmup_steps) {
    return schedule.learning_rate * static_cast<double>(std::max<std::int64_t>(step, 0)) /
           static_cast<double>(schedule.warmup_steps);
  }
  if (schedule.kind == ScheduleKind::kConstant) return schedule.learning_rate;
  const std::int64_t begin = decay_begin(schedule);
  const auto length = static_cast<double>(std::max<std::int64_t>(1, schedule.steps - begin));
  const double way = std::clamp(static_cast<double>(step - 1 - begin) / length, 0.0, 1.0);
  const double left = schedule.kind == ScheduleKind::kCosine
                          ? 0.5 * (1.0 + std::cos(std::numbers::pi * way))
                          : 1.0 - way;
  return schedule.learning_rate * (schedule.final_part + (1.0 - schedule.final_part) * left);
}

Result<ScheduleKind> schedule_named(std::string_view name) {
  std::vector<std::string_view> names;
  for (const auto& [known, kind] : kNames) {
    if (known == name) return kind;
    names.push_back(known);
  }
  Error error = invalid("there is no such schedule of the learning rate", fmt::format("'{}'", name),
                        fmt::format("one of {}", fmt::join(names, ", ")));
  const std::string meant = nearest(name, names);
  if (!meant.empty()) error.advice = fmt::format("did you mean '{}'?", meant);
  return error;
}

std::string_view schedule_name(ScheduleKind kind) {
  for (const auto& [known, other] : kNames) {
    if (other == kind) return known;
  }
  return {};
}

Status check_schedule(const Schedule& schedule) {
  if (!(schedule.learning_rate > 0.0) || std::isinf(schedule.learning_rate)) {
    return invalid("the learning rate is not one", fmt::format("{}", schedule.learning_rate),
                   "a positive number");
  }
  if (schedule.steps < 1) {
    return invalid("a run has at least one step", fmt::format("{} steps", schedule.steps), "1");
  }
  if (schedule.warmup_steps < 0 || schedule.decay_steps < 0 ||
      schedule.warmup_steps > schedule.steps ||
      schedule.decay_steps > schedule.steps - schedule.warmup_steps) {
    return invalid("warm-up and decay do not fit into the run",
                   fmt::format("{} and {} steps", schedule.warmup_steps, schedule.decay_steps),
                   fmt::format("together at most {} steps", schedule.steps));
  }
  if (!(schedule.final_part >= 0.0 && schedule.final_part <= 1.0)) {
    return invalid("the last part of the learning rate is not one",
                   fmt::format("{}", schedule.final_part), "a number from 0 to 1");
  }
  return {};
}

}  // namespace hone::optim

// What a trainer does by forward passes alone: estimates, the gradients they stand for, what leads
// out of the finite, and the history that makes a run again.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "tune/trainer.h"

namespace hone::tune {

std::span<const double> Trainer::coefficients_of(std::int64_t step) const {
  const auto directions = static_cast<std::size_t>(options_.forward->directions);
  return std::span(history_).subspan(static_cast<std::size_t>(step) * directions, directions);
}

// The gradient that the coefficients of a step stand for. A rule that goes element by element gets
// it in parts, drawn where they are used (gradient_part): none is ever held whole.
void Trainer::expand_history(std::int64_t step) {
  current_.clear();
  if (draws_gradients()) return;
  gradients_.resize(trained_.tensors.size());
  forward_gradient_->expand(coefficients_of(step), step, gradients_);
  if (options_.trajectory > 0) follow_trajectories();
  current_.assign(gradients_.begin(), gradients_.end());
}

std::int64_t Trainer::removed_directions() const {
  std::int64_t removed = 0;
  for (const optim::Trajectory& trajectory : trajectories_) removed += trajectory.removed();
  return removed;
}

// Each row's gradient loses the directions without movement, and the length that noise along the
// others adds to an estimate of n directions: sqrt((d + n - 1) / n) (ZOODiP, section 4.2).
void Trainer::follow_trajectories() {
  std::size_t row = 0;
  const auto directions = static_cast<double>(options_.forward->directions);
  for (std::size_t i = 0; i < trained_.tensors.size(); ++i) {
    if (trained_.tensors[i].fixed) continue;
    const auto width = static_cast<std::size_t>(shapes_[i].columns);
    for (std::size_t begin = 0; begin < gradients_[i].size(); begin += width, ++row) {
      if (row >= trajectories_.size()) trajectories_.emplace_back(options_.trajectory);
      optim::Trajectory& trajectory = trajectories_[row];
      trajectory.add(trained_.tensors[i].values.subspan(begin, width));
      const std::span<float> gradient = std::span(gradients_[i]).subspan(begin, width);
      trajectory.project(gradient);
      const double left = static_cast<double>(width) - static_cast<double>(trajectory.removed());
      const double longer = std::sqrt((left + directions - 1) / directions);
      for (float& value : gradient) value = static_cast<float>(value / longer);
    }
  }
}

Status Trainer::estimate(std::span<const std::size_t> chosen,
                         std::span<const feedback::TokenBatch> batches, StepReport& report) {
  const auto judged = [&] {
    const TrainerOptions::Judging& judging = *options_.judging;
    return forward_gradient_->run(
        {[&] { return judging.look(chosen); }, judging.losses, judging.order}, step_);
  };
  auto estimate = options_.judging ? judged() : forward_gradient_->run(batches, step_);
  if (!estimate) return estimate.error();
  report.loss = estimate->loss;
  report.clipped = estimate->clipped;
  for (const feedback::TokenBatch& batch : batches) {
    report.tokens += static_cast<std::int64_t>(batch.tokens.size());
    report.targets += static_cast<std::int64_t>(batch.rows.size());
  }
  const auto directions = static_cast<std::size_t>(options_.forward->directions);
  history_.resize(static_cast<std::size_t>(step_) * directions);
  report.skipped = !estimate->finite;
  if (report.skipped) {
    history_.insert(history_.end(), directions, std::nan(""));
    take_back(step_ - 1);
    return {};
  }
  history_.insert(history_.end(), estimate->coefficients.begin(), estimate->coefficients.end());
  expand_history(step_);
  return {};
}

void Trainer::keep_before_update() {
  states_before_.resize(states_.size());
  values_before_.resize(trained_.tensors.size());
  for (std::size_t i = 0; i < states_.size(); ++i) {
    states_before_[i].assign(states_[i].begin(), states_[i].end());
  }
  for (std::size_t i = 0; i < values_before_.size(); ++i) {
    const TrainedTensor& tensor = trained_.tensors[i];
    if (!tensor.fixed) values_before_[i].assign(tensor.values.begin(), tensor.values.end());
  }
}

// The step's update led out of the finite: it never happened.
void Trainer::take_back(std::int64_t step) {
  rate_factor_ /= 2;
  if (step < 0 || values_before_.empty()) return;
  for (std::size_t i = 0; i < values_before_.size(); ++i) {
    std::ranges::copy(values_before_[i], trained_.tensors[i].values.begin());
  }
  for (std::size_t i = 0; i < states_.size(); ++i) {
    std::ranges::copy(states_before_[i], states_[i].begin());
  }
  values_before_.clear();
  for (optim::Trajectory& trajectory : trajectories_) trajectory.forget_last();
  const auto directions = static_cast<std::size_t>(options_.forward->directions);
  const auto first = history_.begin() +
                     static_cast<std::ptrdiff_t>(step) * static_cast<std::ptrdiff_t>(directions);
  std::fill_n(first, directions, std::numeric_limits<double>::infinity());
}

bool Trainer::draws_gradients() const {
  return forward_gradient_ && options_.rule->element_wise && options_.trajectory == 0;
}

// Some elements of this step's gradient; `buffer` holds them where they are drawn.
std::span<const float> Trainer::gradient_part(std::size_t index, Range range,
                                              std::vector<float>& buffer) const {
  const auto first = static_cast<std::size_t>(range.begin);
  const auto count = static_cast<std::size_t>(range.end - range.begin);
  if (!draws_gradients()) return current_[index].subspan(first, count);
  buffer.assign(count, 0.0F);
  forward_gradient_->expand(coefficients_of(step_), step_, index, range.begin, buffer);
  return buffer;
}

// From the start, with the losses as they were written down: no forward pass runs.
Status Trainer::replay(const Checkpoint& checkpoint) {
  const auto directions = static_cast<std::size_t>(options_.forward->directions);
  const auto steps = static_cast<std::size_t>(checkpoint.step());
  const auto bytes = checkpoint.find("coefficients", steps * directions * sizeof(double));
  if (!bytes) return bytes.error().in(checkpoint.path());
  if (step_ != 0) {
    return Error{ErrorCode::kInvalidArgument,
                 "a run of forward passes is made again from its start",
                 checkpoint.path(),
                 fmt::format("{} steps were done", step_),
                 "a fresh run",
                 ""};
  }
  history_.resize(steps * directions);
  std::memcpy(history_.data(), bytes->data(), bytes->size());
  for (; step_ < checkpoint.step(); ++step_) {
    const double first = history_[static_cast<std::size_t>(step_) * directions];
    if (std::isnan(first)) rate_factor_ /= 2;
    if (!std::isfinite(first)) continue;
    learning_rate_ = optim::scheduled(options_.schedule, step_ + 1) * rate_factor_;
    expand_history(step_);
    StepReport report;
    clip_and_update(report);
  }
  return {};
}

}  // namespace hone::tune

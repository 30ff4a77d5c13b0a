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

namespace {

// Of a momentum's memory, what is at least this much of the newest.
constexpr double kForgotten = 1.0 / 64;

double line_factor(std::size_t point) { return std::exp2(2.0 - static_cast<double>(point)); }

}  // namespace

std::size_t Trainer::row_size() const {
  return static_cast<std::size_t>(options_.forward->directions) +
         (options_.line_search > 0 ? 1U : 0U) + (options_.forward->epsilon_target > 0 ? 1U : 0U);
}

std::span<double> Trainer::row_of(std::int64_t step) {
  return std::span(history_).subspan(static_cast<std::size_t>(step) * row_size(), row_size());
}

// The gradient that the coefficients of a step, and of those before it, stand for. A rule that goes
// element by element gets it in parts, drawn where they are used (gradient_part): none is ever held
// whole.
void Trainer::expand_history(std::int64_t step) {
  const auto directions = static_cast<std::size_t>(options_.forward->directions);
  terms_.clear();
  double weight = 1;
  for (std::int64_t at = step; at >= 0 && weight >= kForgotten; --at) {
    const std::span<const double> row = row_of(at).first(directions);
    if (std::isfinite(row[0])) {
      terms_.push_back({at, {row.begin(), row.end()}});
      for (double& each : terms_.back().coefficients) each *= weight;
    }
    weight *= options_.seed_momentum;
  }
  current_.clear();
  if (draws_gradients()) return;
  gradients_.resize(trained_.tensors.size());
  forward_gradient_->expand(terms_, gradients_);
  if (options_.trajectory > 0) follow_trajectories();
  current_.assign(gradients_.begin(), gradients_.end());
  for (std::size_t i = 0; i < current_.size(); ++i) {
    if (learns_backward(i)) current_[i] = backward_gradients_[i];
  }
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
  history_.resize(static_cast<std::size_t>(step_ + 1) * row_size(), std::nan(""));
  const std::span<double> row = row_of(step_);
  std::ranges::fill(row, std::nan(""));
  if (options_.forward->epsilon_target > 0) row.back() = forward_gradient_->epsilon();
  report.skipped = !estimate->finite;
  if (report.skipped) {
    take_back(step_ - 1);
    return {};
  }
  std::ranges::copy(estimate->coefficients, row.begin());
  expand_history(step_);
  if (options_.line_search > 0) return search_line(chosen, batches, report);
  clip_and_update(report);
  return {};
}

// The point of a line whose loss is least, or that a ranking names first; the same one on all
// ranks.
Result<std::size_t> Trainer::best_of_line(std::span<const double> losses) const {
  std::vector<double> found(losses.begin(), losses.end());
  if (options_.judging) {
    const TrainerOptions::Judging& judging = *options_.judging;
    if (judging.order) {
      const auto order = judging.order();
      if (!order) return order.error();
      return static_cast<std::size_t>(order->front());
    }
    const auto judged = judging.losses();
    if (!judged) return judged.error();
    found = *judged;
    // Programs may say another thing in another process.
    if (options_.forward->ranks.size > 1) {
      const auto all = options_.forward->ranks.gather(found);
      if (!all) return all.error();
      found.assign(all->begin(), all->begin() + std::ssize(found));
    }
  }
  for (double& loss : found) {
    if (!std::isfinite(loss)) loss = std::numeric_limits<double>::infinity();
  }
  return static_cast<std::size_t>(std::ranges::min_element(found) - found.begin());
}

// ZO-RankSGD's line search (Tang et al. 2024), whose points include where it stands.
Status Trainer::search_line(std::span<const std::size_t> chosen,
                            std::span<const feedback::TokenBatch> batches, StepReport& report) {
  std::vector<double> losses;
  const auto look = [&]() -> Status {
    if (options_.judging) return options_.judging->look(chosen);
    const auto loss = forward_gradient_->loss(batches, step_);
    if (!loss) return loss.error();
    losses.push_back(*loss);
    return {};
  };
  report.gradient_norm = norm_of_gradients();
  report.skipped = !std::isfinite(report.gradient_norm);
  if (report.skipped) return {};
  const double rate = learning_rate_;
  Status status = look();
  for (std::size_t i = 0; i < static_cast<std::size_t>(options_.line_search) && status.ok(); ++i) {
    learning_rate_ = rate * line_factor(i);
    clip_and_update(report);
    status = look();
    restore_before();
  }
  HONE_RETURN_IF_ERROR(status);
  const auto best = best_of_line(losses);
  if (!best) return best.error();
  const double factor = *best == 0 ? 0 : line_factor(*best - 1);
  row_of(step_)[static_cast<std::size_t>(options_.forward->directions)] = factor;
  learning_rate_ = rate * factor;
  report.learning_rate = learning_rate_;
  if (factor > 0) clip_and_update(report);
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

void Trainer::restore_before() {
  for (std::size_t i = 0; i < values_before_.size(); ++i) {
    std::ranges::copy(values_before_[i], trained_.tensors[i].values.begin());
  }
  for (std::size_t i = 0; i < states_.size(); ++i) {
    std::ranges::copy(states_before_[i], states_[i].begin());
  }
}

// The step's update led out of the finite: it never happened.
void Trainer::take_back(std::int64_t step) {
  rate_factor_ /= 2;
  if (step < 0 || values_before_.empty()) return;
  restore_before();
  values_before_.clear();
  for (optim::Trajectory& trajectory : trajectories_) trajectory.forget_last();
  const auto directions = static_cast<std::size_t>(options_.forward->directions);
  std::ranges::fill(row_of(step).first(directions), std::numeric_limits<double>::infinity());
}

bool Trainer::draws_gradients() const {
  return forward_gradient_ && options_.rule->element_wise && options_.trajectory == 0;
}

// Some elements of this step's gradient; `buffer` holds them where they are drawn.
std::span<const float> Trainer::gradient_part(std::size_t index, Range range,
                                              std::vector<float>& buffer) const {
  const auto first = static_cast<std::size_t>(range.begin);
  const auto count = static_cast<std::size_t>(range.end - range.begin);
  if (learns_backward(index)) {
    return std::span<const float>(backward_gradients_[index]).subspan(first, count);
  }
  if (!draws_gradients()) return current_[index].subspan(first, count);
  buffer.assign(count, 0.0F);
  forward_gradient_->expand(terms_, index, range.begin, buffer);
  return buffer;
}

// From the start, with the losses as they were written down: no forward pass runs.
Status Trainer::replay(const Checkpoint& checkpoint) {
  const auto numbers = static_cast<std::size_t>(checkpoint.step()) * row_size();
  const auto bytes = checkpoint.find("coefficients", numbers * sizeof(double));
  if (!bytes) return bytes.error().in(checkpoint.path());
  if (step_ != 0) {
    return Error{ErrorCode::kInvalidArgument,
                 "a run of forward passes is made again from its start",
                 checkpoint.path(),
                 fmt::format("{} steps were done", step_),
                 "a fresh run",
                 ""};
  }
  history_.resize(numbers);
  std::memcpy(history_.data(), bytes->data(), bytes->size());
  for (; step_ < checkpoint.step(); ++step_) {
    const std::span<const double> row = row_of(step_);
    if (options_.forward->epsilon_target > 0) forward_gradient_->set_epsilon(row.back());
    if (std::isnan(row[0])) rate_factor_ /= 2;
    if (!std::isfinite(row[0])) continue;
    learning_rate_ = optim::scheduled(options_.schedule, step_ + 1) * rate_factor_;
    if (options_.line_search > 0) {
      learning_rate_ *= row[static_cast<std::size_t>(options_.forward->directions)];
    }
    expand_history(step_);
    StepReport report;
    if (options_.line_search == 0 || learning_rate_ > 0) clip_and_update(report);
  }
  return {};
}

}  // namespace hone::tune

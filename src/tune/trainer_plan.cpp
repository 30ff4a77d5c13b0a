// What a trainer's steps will take: memory by class, and seconds.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "base/timing.h"
#include "tune/trainer.h"

namespace hone::tune {

namespace {

// Of the second of two runs: the first takes memory and compiles.
template <typename Run>
Result<double> seconds_of(const Run& run) {
  double seconds = 0;
  for (int i = 0; i < 2; ++i) {
    const double start = seconds_now();
    const auto outcome = run();
    if (!outcome) return outcome.error();
    seconds = seconds_now() - start;
  }
  return seconds;
}

}  // namespace

// Judges are measured by their job; what several processes wait for is not: the roofline stands in.
Result<double> Trainer::measure_forward_step(const feedback::TokenBatch& batch) {
  if (options_.judging || options_.forward->ranks.size > 1) {
    const auto plan = this->plan();
    if (!plan) return plan.error();
    return plan->cost.seconds;
  }
  const std::span batches(&batch, 1);
  const double epsilon = forward_gradient_->epsilon();
  const auto run = [&]() -> Result<feedback::ForwardEstimate> {
    auto estimate = forward_gradient_->run(batches, 0);
    const std::int64_t points = options_.line_search > 0 ? options_.line_search + 1 : 0;
    for (std::int64_t i = 0; i < points && estimate.ok(); ++i) {
      const auto loss = forward_gradient_->loss(batches, 0);
      if (!loss) return loss.error();
    }
    forward_gradient_->set_epsilon(epsilon);  // nothing was learned from this
    if (options_.backward_layers > 0) {
      const Status status = add_backward(batches);
      if (!status.ok()) return status.error();
    }
    return estimate;
  };
  const auto again = seconds_of(run);
  give_back_memory();
  if (!again || forward_gradient_->kept_layers() == nullptr) return again;
  // What comes for the first time runs through all layers; the rest only as far as it is not kept.
  forward_gradient_->forget_kept();
  const double start = seconds_now();
  const auto first = run();
  if (!first) return first.error();
  const double anew = seconds_now() - start;
  give_back_memory();
  forward_gradient_->forget_kept();
  const double visits = static_cast<double>(options_.schedule.steps * options_.batch);
  const double repeated = std::max(0.0, 1 - static_cast<double>(examples_.size()) / visits);
  std::int64_t bytes = 0;
  for (const Example& example : examples_) bytes += kept_bytes_of(example);
  const double kept = std::min(1.0, static_cast<double>(options_.forward->kept_layer_bytes) /
                                        static_cast<double>(std::max<std::int64_t>(1, bytes)));
  return anew + (*again - anew) * repeated * kept;
}

// One run of a batch of middle size, without its update; what the steps of an epoch do more is
// counted: runs by their tokens, the update by its bytes.
Result<double> Trainer::measure_step() {
  constexpr std::int64_t kMostSteps = 64;
  const std::int64_t steps = std::min(steps_of_epoch(), kMostSteps);
  std::vector<feedback::TokenBatch> batches;
  for (std::int64_t step = 0; step < steps; ++step) {
    std::vector<const Example*> chosen;
    for (const std::size_t index : examples_of(step)) chosen.push_back(&examples_[index]);
    for (feedback::TokenBatch& batch : micro_batches(chosen)) {
      if (!batch.rows.empty()) batches.push_back(std::move(batch));
    }
  }
  if (batches.empty()) return 0.0;
  std::ranges::sort(batches, {}, [](const auto& batch) { return batch.tokens.size(); });
  if (forward_gradient_) return measure_forward_step(batches[batches.size() / 2]);
  const feedback::TokenBatch& middle = batches[batches.size() / 2];
  double tokens = 0;
  for (const auto& batch : batches) tokens += static_cast<double>(batch.tokens.size());
  feedback::GradientOptions options = gradient_options();
  if (options.update) {
    options.update = [](std::string_view) -> passes::UpdateFunction {
      return [](std::span<float>, std::span<const float>, runtime::Worker) {};
    };
  }
  feedback::Gradient probe(session_, std::move(options));
  const auto seconds = seconds_of([&] { return probe.run(middle); });
  if (!seconds) return seconds;
  const auto of_epoch = static_cast<double>(steps);
  const double runs = tokens / static_cast<double>(middle.tokens.size()) / of_epoch;
  const auto trained = static_cast<double>(trained_.bytes());
  double states = 0;
  for (const auto& state : states_) states += static_cast<double>(state.size());
  // Reads and writes weights and state; reads gradients, twice where their norm comes first, and
  // adds them up where a step has several runs.
  double bytes = 2 * trained + 2 * states + (options_.update_inside ? 0 : 2) * trained;
  const double each_step = static_cast<double>(batches.size()) / of_epoch;
  if (each_step > 1 && !options_.update_inside) bytes += 3 * trained * each_step;
  return *seconds * runs + bytes / options_.machine.bytes;
}

// The shape with most tokens among those of the first epoch stands for all.
Result<feedback::GradientPlan> Trainer::plan() {
  feedback::TokenBatch largest;
  const std::int64_t step_before = step_;
  for (std::int64_t step = 0; step < steps_of_epoch(); ++step) {
    std::vector<const Example*> chosen;
    for (const std::size_t index : examples_of(step)) chosen.push_back(&examples_[index]);
    for (feedback::TokenBatch& batch : micro_batches(chosen)) {
      const auto size = [](const feedback::TokenBatch& b) {
        return b.tokens.size() + b.rows.size();
      };
      if (size(batch) > size(largest)) largest = std::move(batch);
    }
  }
  step_ = step_before;
  return forward_gradient_ ? elastic_plan(largest) : gradient_.plan(largest);
}

// Of what the lower layers give for it.
std::int64_t Trainer::kept_bytes_of(const Example& example) const {
  return static_cast<std::int64_t>(example.tokens.size() * sizeof(float)) *
         session_.config().hidden;
}

Result<MemoryClasses> Trainer::memory() {
  auto plan = this->plan();
  if (!plan) return plan.error();
  MemoryClasses classes;
  classes.trained = trained_.bytes();
  classes.weights = static_cast<std::int64_t>(session_.weights().owned_bytes()) - classes.trained;
  std::int64_t states = 0;
  std::int64_t largest = 0;
  for (const auto& state : states_) {
    states += static_cast<std::int64_t>(state.size());
    largest = std::max(largest, static_cast<std::int64_t>(state.size()));
  }
  (options_.offload.empty() ? classes.optimizer : classes.offloaded) = states;
  if (forward_gradient_) {
    // Values before the update, and a gradient that is not drawn in parts.
    classes.gradients = trained_.bytes() * (draws_gradients() ? 1 : 2);
    for (std::size_t i = 0; i < trained_.tensors.size(); ++i) {
      const std::size_t bytes = trained_.tensors[i].values.size_bytes();
      if (learns_backward(i)) classes.gradients += static_cast<std::int64_t>(bytes);
    }
    classes.optimizer += forward_gradient_->direction_bytes();
    classes.weights -= forward_gradient_->direction_bytes();  // which the session holds for it
    if (forward_gradient_->kept_layers() != nullptr) {
      for (const Example& example : examples_) classes.kept += kept_bytes_of(example);
      classes.kept = std::min(classes.kept, options_.forward->kept_layer_bytes);
    }
  }
  const bool sums = !options_.update_inside && options_.batch > 1 && !forward_gradient_;
  std::size_t most = 1;
  for (std::int64_t step = 0; sums && step < steps_of_epoch(); ++step) {
    std::vector<const Example*> chosen;
    for (const std::size_t index : examples_of(step)) chosen.push_back(&examples_[index]);
    most = std::max(most, micro_batches(chosen).size());
  }
  if (most > 1) classes.gradients = trained_.bytes();
  classes.activations = plan->arena_bytes;
  classes.work = plan->work_bytes;
  if (!options_.offload.empty()) {
    // Every thread's part of an element-wise rule; a whole state of the others.
    const std::int64_t each =
        options_.rule->element_wise ? std::min(largest, kPartElements * 16) : largest;
    classes.work += each * session_.pool().size();
  }
  return classes;
}

}  // namespace hone::tune

// The elastic split of a trainer (ElasticZO, Sugiura & Matsutani 2025): the last layers learn by a
// backward pass that goes no deeper, the layers below them by forward passes alone.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <cstring>

#include "engine/adapter.h"
#include "tune/trainer.h"

namespace hone::tune {

bool Trainer::learns_backward(std::size_t index) const {
  const TrainedTensor& tensor = trained_.tensors[index];
  if (!options_.forward || options_.backward_layers == 0 || tensor.fixed) return false;
  return engine::layer_of(tensor.name) >= session_.config().layers - options_.backward_layers;
}

// The gradients of the last layers, of the sum over the batches.
Status Trainer::add_backward(std::span<const feedback::TokenBatch> batches) {
  backward_gradients_.resize(trained_.tensors.size());
  for (const feedback::TokenBatch& batch : batches) {
    auto outcome = gradient_.run(batch);
    if (!outcome) return outcome.error();
    const bool first = &batch == &batches.front();
    for (std::size_t i = 0, next = 0; i < trained_.tensors.size(); ++i) {
      if (!learns_backward(i)) continue;
      const std::span<const float> from = outcome->gradients[next++];
      std::vector<float>& sum = backward_gradients_[i];
      if (first) sum.assign(from.begin(), from.end());
      for (std::size_t j = 0; j < from.size() && !first; ++j) sum[j] += from[j];
    }
  }
  return {};
}

// Both ways need the same memory, one after the other.
Result<feedback::GradientPlan> Trainer::elastic_plan(const feedback::TokenBatch& batch) {
  auto forward = forward_gradient_->plan(batch);
  if (!forward || options_.backward_layers == 0) return forward;
  auto backward = gradient_.plan(batch);
  if (!backward) return backward;
  backward->arena_bytes = std::max(backward->arena_bytes, forward->arena_bytes);
  backward->work_bytes = std::max(backward->work_bytes, forward->work_bytes);
  backward->cost.seconds += forward->cost.seconds;
  return backward;
}

// A gradient is no list of numbers: tensors and state are kept as well. Of the list the rate and
// the probes' distance are found again.
Status Trainer::restore_history(const Checkpoint& checkpoint) {
  const auto numbers = static_cast<std::size_t>(checkpoint.step()) * row_size();
  const auto bytes = checkpoint.find("coefficients", numbers * sizeof(double));
  if (!bytes) return bytes.error().in(checkpoint.path());
  history_.resize(numbers);
  std::memcpy(history_.data(), bytes->data(), bytes->size());
  for (std::int64_t step = 0; step < checkpoint.step(); ++step) {
    const std::span<const double> row = row_of(step);
    if (options_.forward->epsilon_target > 0) forward_gradient_->set_epsilon(row.back());
    if (std::isnan(row[0])) rate_factor_ /= 2;
  }
  return {};
}

}  // namespace hone::tune

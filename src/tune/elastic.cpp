// SPDX-License-Identifier: Apache-2.0
#include "tune/elastic.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "feedback/directions.h"

namespace hone::tune {
namespace {

constexpr std::size_t kPortion = 256;  // examples of a forward pass that only predicts

DirectionKey key_of(const ElasticOptions& options, std::uint32_t step, std::size_t tensor) {
  return {options.seed, step, 0, static_cast<std::uint32_t>(tensor)};
}

}  // namespace

ElasticTrainer::ElasticTrainer(Network& network, const VisionModel& model,
                               const ElasticOptions& options)
    : network_(network), model_(model), options_(options) {
  const auto layers = std::ssize(model.layers);
  const std::int64_t cut = std::clamp<std::int64_t>(options.cut, 0, layers);
  head_ = parameters_of(model, 0, cut);
  tail_ = parameters_of(model, cut, layers);
  for (const std::string& name : head_) {
    const auto values = network_.values(name);
    copies_.emplace_back(values.begin(), values.end());
  }
  for (const std::string& name : tail_) gradients_.emplace_back(network_.values(name).size());
}

void ElasticTrainer::perturb(double factor) {
  for (std::size_t tensor = 0; tensor < head_.size(); ++tensor) {
    const auto values = network_.values(head_[tensor]);
    std::ranges::copy(copies_[tensor], values.begin());
    if (factor == 0) continue;
    feedback::add_direction(feedback::Noise::kRademacher, key_of(options_, step_, tensor), 0,
                            static_cast<float>(factor), values);
  }
}

Result<double> ElasticTrainer::pass(std::span<const float> features,
                                    std::span<const std::int32_t> targets) {
  const std::vector<float> weights(targets.size(), 1.0F / static_cast<float>(targets.size()));
  const std::vector<Network::Input> inputs = {{"features", std::as_bytes(features)},
                                              {"targets", std::as_bytes(targets)},
                                              {"weights", std::as_bytes(std::span(weights))}};
  Network::Program program;
  program.build = [&] { return vision_loss(model_, std::ssize(targets), tail_.empty()); };
  program.trained = tail_;
  const auto outcome =
      network_.run(fmt::format("step {} {}", targets.size(), tail_.size()), program, inputs);
  if (!outcome) return outcome.error();
  for (std::size_t i = 0; i < tail_.size(); ++i) {
    std::ranges::transform(gradients_[i], outcome->gradients[i], gradients_[i].begin(),
                           std::plus<>());
  }
  double loss = 0;
  for (const float each : outcome->outputs[0]) loss += double{each};
  return loss;
}

Result<double> ElasticTrainer::step(std::span<const float> features,
                                    std::span<const std::int32_t> targets) {
  ++step_;
  for (auto& gradient : gradients_) std::ranges::fill(gradient, 0.0F);
  std::vector<double> losses;
  for (const double sign : {1.0, -1.0}) {
    if (head_.empty() && sign < 0) break;
    perturb(sign * options_.epsilon);
    const auto loss = pass(features, targets);
    if (!loss) {
      perturb(0);
      return loss.error();
    }
    losses.push_back(*loss);
  }
  const double mean = losses.size() == 2 ? (losses[0] + losses[1]) / 2 : losses[0];
  double projected = losses.size() == 2 ? (losses[0] - losses[1]) / (2 * options_.epsilon) : 0;
  if (!std::isfinite(mean)) {
    ++rejected_;
    perturb(0);
    return mean;
  }
  if (options_.clip > 0) projected = std::clamp(projected, -options_.clip, options_.clip);
  for (std::size_t tensor = 0; tensor < head_.size(); ++tensor) {
    feedback::add_direction(feedback::Noise::kRademacher, key_of(options_, step_, tensor), 0,
                            static_cast<float>(-options_.head_rate * projected), copies_[tensor]);
  }
  perturb(0);
  const auto rate = static_cast<float>(options_.tail_rate / static_cast<double>(losses.size()));
  for (std::size_t i = 0; i < tail_.size(); ++i) {
    const auto values = network_.values(tail_[i]);
    for (std::size_t j = 0; j < values.size(); ++j) values[j] -= rate * gradients_[i][j];
  }
  return mean;
}

Result<ElasticMemory> ElasticTrainer::memory(std::int64_t examples) {
  Network::Program program;
  program.build = [&] { return vision_loss(model_, examples, tail_.empty()); };
  program.trained = tail_;
  const auto planned = network_.planned(fmt::format("step {} {}", examples, tail_.size()), program);
  if (!planned) return planned.error();
  ElasticMemory memory;
  memory.parameters = network_.parameters() * 4;
  memory.arena = planned->arena;
  memory.scratch = planned->scratch;
  for (const auto& copy : copies_) memory.beside += 4 * std::ssize(copy);
  return memory;
}

Result<double> vision_accuracy(Network& network, const VisionModel& model,
                               std::span<const float> features,
                               std::span<const std::int32_t> targets) {
  const auto width = static_cast<std::size_t>(model.features);
  const auto classes = static_cast<std::ptrdiff_t>(model.classes);
  std::int64_t right = 0;
  for (std::size_t begin = 0; begin < targets.size(); begin += kPortion) {
    const std::size_t count = std::min(kPortion, targets.size() - begin);
    Network::Program program;
    program.build = [&] { return vision_logits(model, static_cast<std::int64_t>(count)); };
    const std::vector<Network::Input> inputs = {
        {"features", std::as_bytes(features.subspan(begin * width, count * width))}};
    const auto outcome = network.run(fmt::format("logits {}", count), program, inputs);
    if (!outcome) return outcome.error();
    const auto logits = outcome->outputs[0].begin();
    for (std::size_t i = 0; i < count; ++i) {
      const auto row = logits + static_cast<std::ptrdiff_t>(i) * classes;
      right += std::max_element(row, row + classes) - row == targets[begin + i] ? 1 : 0;
    }
  }
  return targets.empty() ? 0 : static_cast<double>(right) / static_cast<double>(targets.size());
}

}  // namespace hone::tune

// SPDX-License-Identifier: Apache-2.0
#include "tune/multitask.h"

#include <algorithm>
#include <numeric>

namespace hone::tune {
namespace {

std::vector<std::vector<float>> copies(std::span<const std::span<const float>> from) {
  std::vector<std::vector<float>> out;
  for (const auto& each : from) out.emplace_back(each.begin(), each.end());
  return out;
}

std::vector<std::span<const float>> views(std::span<const std::vector<float>> from) {
  return {from.begin(), from.end()};
}

}  // namespace

MultitaskGradient::MultitaskGradient(Classifier& model, std::int64_t heads,
                                     const MultitaskOptions& options)
    : model_(model), options_(options), heads_(static_cast<std::size_t>(heads)) {
  std::iota(heads_.begin(), heads_.end(), std::int64_t{0});
  for (const auto& values : weights(model_.parameters_of(heads_))) sum_.emplace_back(values.size());
}

std::vector<std::span<float>> MultitaskGradient::weights(std::span<const std::string> names) {
  std::vector<std::span<float>> out;
  for (const std::string& name : names) out.push_back(model_.network().values(name));
  return out;
}

Result<std::vector<std::span<const float>>> MultitaskGradient::of(const MultitaskBatch& batch,
                                                                  std::int64_t step) {
  for (auto& sum : sum_) std::ranges::fill(sum, 0.0F);
  if (options_.sharpness == Sharpness::kPerTask) {
    HONE_RETURN_IF_ERROR(add_per_task(batch));
    return views(sum_);
  }
  if (options_.sharpness == Sharpness::kSamo) {
    HONE_RETURN_IF_ERROR(add_samo(batch, step));
    return views(sum_);
  }
  auto outcome = model_.gradients(heads_, batch.joint);
  if (!outcome || options_.sharpness == Sharpness::kNone) {
    if (!outcome) return outcome.error();
    return outcome->gradients;
  }
  optim::Ascent ascent(weights(model_.parameters_of(heads_)));
  ascent.ascend(outcome->gradients, options_.rho);
  outcome = model_.gradients(heads_, batch.joint);
  ascent.restore();
  if (!outcome) return outcome.error();
  return outcome->gradients;
}

Status MultitaskGradient::add_task(const MultitaskBatch& batch, std::int64_t head) {
  const auto outcome =
      model_.gradients(std::span(&head, 1), batch.tasks[static_cast<std::size_t>(head)]);
  if (!outcome) return outcome.error();
  const std::size_t trunk = model_.trunk().size();
  for (std::size_t i = 0; i <= trunk; ++i) {
    auto& to = sum_[i < trunk ? i : trunk + static_cast<std::size_t>(head)];
    for (std::size_t j = 0; j < to.size(); ++j) to[j] += outcome->gradients[i][j];
  }
  return {};
}

Status MultitaskGradient::add_per_task(const MultitaskBatch& batch) {
  for (const std::int64_t head : heads_) {
    const auto outcome =
        model_.gradients(std::span(&head, 1), batch.tasks[static_cast<std::size_t>(head)]);
    if (!outcome) return outcome.error();
    optim::Ascent ascent(weights(model_.parameters_of(std::span(&head, 1))));
    ascent.ascend(outcome->gradients, options_.rho);
    const Status added = add_task(batch, head);
    ascent.restore();
    HONE_RETURN_IF_ERROR(added);
  }
  return {};
}

// A task's loss at w + mu z and at w - mu z of the trunk.
Result<optim::SamoProbe> MultitaskGradient::probe(const MultitaskBatch& batch, std::int64_t head,
                                                  std::int64_t step) {
  const auto trunk = weights(model_.trunk());
  const ClassifierBatch& task = batch.tasks[static_cast<std::size_t>(head)];
  optim::SamoProbe out;
  out.seed = options_.seed + static_cast<std::uint64_t>(step) * heads_.size() +
             static_cast<std::uint64_t>(head);
  std::vector<std::vector<float>> kept;
  for (std::size_t i = 0; i < trunk.size(); ++i) {
    kept.emplace_back(trunk[i].begin(), trunk[i].end());
    optim::add_noise(trunk[i], options_.samo.mu, out.seed, i);
  }
  const auto up = model_.losses(std::span(&head, 1), task);
  // The mirror image: no second draw of the noise.
  for (std::size_t i = 0; i < trunk.size(); ++i) {
    for (std::size_t j = 0; j < trunk[i].size(); ++j) trunk[i][j] = 2 * kept[i][j] - trunk[i][j];
  }
  const auto down = model_.losses(std::span(&head, 1), task);
  for (std::size_t i = 0; i < trunk.size(); ++i) std::ranges::copy(kept[i], trunk[i].begin());
  if (!up || !down) return up ? down.error() : up.error();
  out.loss_up = up->losses[0];
  out.loss_down = down->losses[0];
  return out;
}

Status MultitaskGradient::add_samo(const MultitaskBatch& batch, std::int64_t step) {
  const auto outcome = model_.gradients(heads_, batch.joint);
  if (!outcome) return outcome.error();
  // The next run overwrites them.
  const auto joint = copies(outcome->gradients);
  const std::size_t trunk = model_.trunk().size();
  const auto global = views(std::span(joint).first(trunk));
  std::vector<std::vector<float>> direction = copies(global);
  const std::vector<std::span<float>> to(direction.begin(), direction.end());
  for (const std::int64_t head : heads_) {
    const auto sample = probe(batch, head, step);
    if (!sample) return sample.error();
    optim::samo_direction(global, *sample, options_.samo, to);
    optim::Ascent shared(weights(model_.trunk()));
    shared.ascend(views(direction), options_.rho);
    // A head goes up along its own gradient, which the joint pass gave exactly.
    const std::string name = model_.head_name(head);
    optim::Ascent own(weights(std::span(&name, 1)));
    const std::span<const float> gradient = joint[trunk + static_cast<std::size_t>(head)];
    own.ascend(std::span(&gradient, 1), options_.rho);
    const Status added = add_task(batch, head);
    own.restore();
    shared.restore();
    HONE_RETURN_IF_ERROR(added);
  }
  return {};
}

}  // namespace hone::tune

// SPDX-License-Identifier: Apache-2.0
#include "feedback/forward_gradient.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "base/random.h"
#include "engine/adapter.h"
#include "feedback/kept_layers.h"
#include "passes/transform/tangent.h"

namespace hone::feedback {
namespace {

// Directions that run beside the value at once: more share its cost, and take activations each.
constexpr std::int64_t kTogether = 8;

// Draws of another kind than directions: their step is none of theirs.
constexpr std::uint64_t kLayerStream = 0x4C61796572ULL;

}  // namespace

Result<Probe> probe_named(std::string_view name) {
  if (name == "tangent") return Probe::kTangent;
  if (name == "pair") return Probe::kPair;
  if (name == "one-sided") return Probe::kOneSided;
  return Error{ErrorCode::kInvalidArgument, "there is no such probe",     "--probe",
               std::string(name),           "tangent, pair or one-sided", ""};
}

Result<std::unique_ptr<ForwardGradient>> ForwardGradient::create(
    engine::Session& session, const GradientOptions& base, std::vector<Perturbed> tensors,
    const ForwardOptions& options, std::shared_ptr<runtime::Workspace> workspace) {
  if (options.directions < 1 || !(options.epsilon > 0)) {
    return Error{ErrorCode::kInvalidArgument,
                 "forward passes need a direction and a distance",
                 "",
                 fmt::format("{} directions, epsilon {}", options.directions, options.epsilon),
                 "at least 1, above 0",
                 ""};
  }
  std::unique_ptr<ForwardGradient> made(new ForwardGradient(session, std::move(tensors), options));
  made->base_ = base;
  made->base_.forward_only = true;
  made->base_.update = nullptr;
  made->workspace_ = std::move(workspace);
  for (const Perturbed& tensor : made->tensors_) {
    made->layers_.push_back(engine::layer_of(tensor.name));
  }
  made->keep_layers();
  const bool tangent = options.probe == Probe::kTangent;
  const std::int64_t together = tangent ? std::min(options.directions, kTogether) : 0;
  // The lowest that any step moves.
  const std::int64_t lowest = options.layers > 0 ? made->first_layer(0) : 0;
  for (int k = 0; k < static_cast<int>(together); ++k) {
    auto& spans = made->at_.emplace_back();
    for (std::size_t i = 0; i < made->tensors_.size(); ++i) {
      if (!made->touched(i, lowest) || made->drawn(i)) {
        spans.emplace_back();
        continue;
      }
      const Perturbed& tensor = made->tensors_[i];
      const std::vector<float> zeros(tensor.values.size(), 0.0F);
      auto memory = session.weights().add_owned(passes::direction_name(tensor.name, k),
                                                ir::tensor_type(tensor.shape),
                                                std::as_bytes(std::span(zeros)));
      if (!memory) return memory.error();
      spans.emplace_back(reinterpret_cast<float*>(memory->data()), tensor.values.size());
    }
    const std::array<std::int32_t, 4> words{};
    auto key =
        session.weights().add_owned(passes::signs_key_name(k), ir::tensor_type({4}, DType::kI32),
                                    std::as_bytes(std::span(words)));
    if (!key) return key.error();
    made->keys_.push_back(*key);
  }
  return made;
}

// Below the lowest tensor that may move: one that no direction touches still moves by its rule.
void ForwardGradient::keep_layers() {
  std::int64_t layer = session_.config().layers;
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    if (!tensors_[i].fixed) layer = std::min(layer, layers_[i]);
  }
  if (layer <= 0 || options_.kept_layer_bytes <= 0) return;
  base_.kept_layers =
      std::make_shared<KeptLayers>(session_,
                                   KeptLayers::Options{base_.compile, base_.adapt, base_.machine,
                                                       layer, options_.kept_layer_bytes},
                                   workspace_);
}

void ForwardGradient::forget_kept() {
  if (base_.kept_layers != nullptr) base_.kept_layers->forget();
}

std::int64_t ForwardGradient::first_layer(std::int64_t step) const {
  const auto layers = static_cast<std::int64_t>(session_.config().layers);
  if (options_.layers == 0) return 0;
  if (options_.layers > 0) return std::max<std::int64_t>(0, layers - options_.layers);
  // Four cuts: few programs, and each layer below the last quarter is left out now and then.
  Random random(options_.seed ^ kLayerStream, static_cast<std::uint64_t>(step));
  return layers * random.below(4) / 4;
}

// What belongs to no layer lies below all of them.
bool ForwardGradient::touched(std::size_t tensor, std::int64_t first_layer) const {
  return !tensors_[tensor].fixed && (first_layer == 0 || layers_[tensor] >= first_layer);
}

bool ForwardGradient::drawn(std::size_t tensor) const {
  const ir::Shape& shape = tensors_[tensor].shape;
  return options_.noise == Noise::kRademacher && shape.size() == 2 &&
         shape[0] * shape[1] >= options_.drawn_elements;
}

Gradient& ForwardGradient::program_of(std::int64_t layer, int directions) {
  // Plain losses are the same program whatever is perturbed.
  const std::pair key{directions == 0 ? 0 : layer, directions};
  std::unique_ptr<Gradient>& program = programs_[key];
  if (program == nullptr) {
    GradientOptions options = base_;
    options.directions = directions;
    if (directions > 0) {
      options.trained.clear();
      for (std::size_t i = 0; i < tensors_.size(); ++i) {
        if (!touched(i, layer)) continue;
        options.trained.push_back(tensors_[i].name);
        options.drawn.push_back(drawn(i) ? static_cast<std::int64_t>(i) : -1);
      }
    }
    program = std::make_unique<Gradient>(session_, options, workspace_);
  }
  return *program;
}

DirectionKey ForwardGradient::key_of(std::int64_t step, std::int64_t direction,
                                     std::size_t tensor) const {
  return {options_.seed, static_cast<std::uint32_t>(step), static_cast<std::uint32_t>(direction),
          static_cast<std::uint32_t>(tensor)};
}

void ForwardGradient::place_directions(std::int64_t step, std::int64_t first, std::int64_t count) {
  for (std::int64_t k = 0; k < count; ++k) {
    const DirectionKey key = key_of(step, first + k, 0);
    const std::array<std::uint32_t, 4> words{static_cast<std::uint32_t>(key.seed),
                                             static_cast<std::uint32_t>(key.seed >> 32), key.step,
                                             key.direction};
    std::ranges::copy(std::as_bytes(std::span(words)), keys_[static_cast<std::size_t>(k)].begin());
  }
  const int threads = session_.pool().size();
  session_.pool().run([&](int thread) {
    for (std::int64_t k = 0; k < count; ++k) {
      for (std::size_t i = 0; i < tensors_.size(); ++i) {
        const std::span<float> out = at_[static_cast<std::size_t>(k)][i];
        const Range share =
            share_of(static_cast<std::int64_t>(out.size()), thread, threads, kDirectionGranule);
        if (share.begin >= share.end) continue;
        fill_direction(options_.noise, key_of(step, first + k, i), share.begin,
                       out.subspan(static_cast<std::size_t>(share.begin),
                                   static_cast<std::size_t>(share.end - share.begin)));
      }
    }
  });
}

void ForwardGradient::keep() {
  kept_.clear();
  for (const Perturbed& tensor : tensors_) {
    kept_.emplace_back();
    if (!tensor.fixed) kept_.back().assign(tensor.values.begin(), tensor.values.end());
  }
}

// From the copy: adding and subtracting would round.
void ForwardGradient::put_back() {
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    std::ranges::copy(kept_[i], tensors_[i].values.begin());
  }
}

void ForwardGradient::move_to(std::int64_t step, std::int64_t direction, double distance) {
  const std::int64_t layer = first_layer(step);
  const int threads = session_.pool().size();
  session_.pool().run([&](int thread) {
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      const auto count = static_cast<std::int64_t>(kept_[i].size());
      const Range share = share_of(count, thread, threads, kDirectionGranule);
      if (share.begin >= share.end) continue;
      const auto begin = static_cast<std::size_t>(share.begin);
      const auto size = static_cast<std::size_t>(share.end - share.begin);
      const std::span<float> to = tensors_[i].values.subspan(begin, size);
      std::copy_n(kept_[i].begin() + share.begin, size, to.begin());
      if (!touched(i, layer)) continue;
      add_direction(options_.noise, key_of(step, direction, i), share.begin,
                    static_cast<float>(distance), to);
    }
  });
}

// Of all ranks where they share the directions, in rank order; otherwise what is there.
Result<std::vector<double>> ForwardGradient::all_of(std::vector<double> mine) const {
  if (options_.ranks.size <= 1 || options_.shares_examples()) return mine;
  return options_.ranks.gather(mine);
}

// The units of all ranks where they share the examples.
Result<ForwardGradient::Units> ForwardGradient::gathered(const Units& mine) const {
  if (!options_.shares_examples()) return mine;
  std::vector<double> flat;
  for (std::size_t unit = 0; unit < mine.losses.size(); ++unit) {
    flat.push_back(mine.losses[unit]);
    for (const auto& along : mine.derivatives) flat.push_back(along[unit]);
  }
  const auto all = options_.ranks.gather(flat);
  if (!all) return all.error();
  Units units;
  units.derivatives.resize(mine.derivatives.size());
  for (std::size_t i = 0; i < all->size();) {
    units.losses.push_back((*all)[i++]);
    for (auto& along : units.derivatives) along.push_back((*all)[i++]);
  }
  return units;
}

Result<double> ForwardGradient::loss_of(std::span<const TokenBatch> batches, std::int64_t layer) {
  Units units;
  for (const TokenBatch& batch : batches) {
    auto outcome = program_of(layer, 0).run(batch);
    if (!outcome) return outcome.error();
    units.losses.insert(units.losses.end(), outcome->unit_losses.begin(),
                        outcome->unit_losses.end());
  }
  const auto all = gathered(units);
  if (!all) return all.error();
  return std::accumulate(all->losses.begin(), all->losses.end(), 0.0);
}

Status ForwardGradient::finish(ForwardEstimate& estimate) const {
  estimate.finite =
      std::isfinite(estimate.loss) &&
      std::ranges::all_of(estimate.derivatives, [](double d) { return std::isfinite(d); });
  if (!estimate.finite) return {};
  estimate.clipped = optim::clip_derivatives(estimate.derivatives, options_.clip);
  auto coefficients = optim::coefficients_of(estimate.derivatives, options_.shaping);
  if (!coefficients) return coefficients.error();
  estimate.coefficients = *std::move(coefficients);
  return {};
}

Result<ForwardEstimate> ForwardGradient::tangents(std::span<const TokenBatch> batches,
                                                  std::int64_t step) {
  ForwardEstimate estimate;
  const std::int64_t layer = first_layer(step);
  const Range mine = options_.own_directions();
  std::vector<double> derivatives;
  for (std::int64_t first = mine.begin; first < mine.end; first += kTogether) {
    const std::int64_t count = std::min(kTogether, mine.end - first);
    place_directions(step, first, count);
    Units units;
    units.derivatives.resize(static_cast<std::size_t>(count));
    for (const TokenBatch& batch : batches) {
      auto outcome = program_of(layer, static_cast<int>(count)).run(batch);
      if (!outcome) return outcome.error();
      const auto append = [](std::vector<double>& to, const std::vector<double>& from) {
        to.insert(to.end(), from.begin(), from.end());
      };
      append(units.losses, outcome->unit_losses);
      for (std::size_t k = 0; k < units.derivatives.size(); ++k) {
        append(units.derivatives[k], outcome->unit_derivatives[k]);
      }
    }
    const auto all = gathered(units);
    if (!all) return all.error();
    estimate.loss = std::accumulate(all->losses.begin(), all->losses.end(), 0.0);
    for (const auto& along : all->derivatives) {
      derivatives.push_back(std::accumulate(along.begin(), along.end(), 0.0));
    }
  }
  auto found = all_of(std::move(derivatives));
  if (!found) return found.error();
  estimate.derivatives = *std::move(found);
  HONE_RETURN_IF_ERROR(finish(estimate));
  return estimate;
}

Result<ForwardEstimate> ForwardGradient::probes(const Candidates& candidates, std::int64_t step,
                                                Probe probe) {
  const bool pair = probe == Probe::kPair;
  Status status = pair ? Status{} : candidates.look();
  HONE_RETURN_IF_ERROR(status);
  keep();
  const Range mine = options_.own_directions();
  for (std::int64_t k = mine.begin; k < mine.end && status.ok(); ++k) {
    move_to(step, k, epsilon_);
    status = candidates.look();
    if (!pair || !status.ok()) continue;
    move_to(step, k, -epsilon_);
    status = candidates.look();
  }
  put_back();
  HONE_RETURN_IF_ERROR(status);
  const auto losses = candidates.losses();
  if (!losses) return losses.error();
  std::vector<double> ends;  // ahead and behind of each direction
  for (std::size_t i = pair ? 0 : 1; i < losses->size(); ++i) {
    ends.push_back((*losses)[i]);
    if (!pair) ends.push_back((*losses)[0]);
  }
  const auto all = all_of(std::move(ends));
  if (!all) return all.error();
  ForwardEstimate estimate;
  const double distance = pair ? 2 * epsilon_ : epsilon_;
  for (std::size_t i = 0; i + 1 < all->size(); i += 2) {
    estimate.derivatives.push_back(((*all)[i] - (*all)[i + 1]) / distance);
  }
  const double sum = std::accumulate(all->begin(), all->end(), 0.0);
  estimate.loss = pair ? sum / static_cast<double>(all->size()) : (*losses)[0];
  HONE_RETURN_IF_ERROR(finish(estimate));
  if (options_.epsilon_target > 0) follow_target(*all, estimate);
  return estimate;
}

// Losses that hardly differ are rounding (or equal, where a reward counts answers); those that
// differ much bend.
void ForwardGradient::follow_target(std::span<const double> ends, const ForwardEstimate& estimate) {
  constexpr double kMost = 1.25;
  constexpr double kRange = 64;
  double apart = 0;
  for (std::size_t i = 0; i + 1 < ends.size(); i += 2) apart += std::abs(ends[i] - ends[i + 1]);
  const bool pair = options_.probe != Probe::kOneSided;
  const double reached = apart / static_cast<double>(ends.size() / 2) / (pair ? 2 : 1);
  const double wanted = options_.epsilon_target * std::abs(estimate.loss);
  double by = reached > 0 ? std::clamp(wanted / reached, 1 / kMost, kMost) : kMost;
  if (!estimate.finite) by = 1 / kMost;
  epsilon_ = std::clamp(epsilon_ * by, options_.epsilon / kRange, options_.epsilon * kRange);
}

Result<ForwardEstimate> ForwardGradient::run(std::span<const TokenBatch> batches,
                                             std::int64_t step) {
  if (options_.probe == Probe::kTangent) return tangents(batches, step);
  const std::int64_t layer = first_layer(step);
  std::vector<double> losses;
  const auto look = [&]() -> Status {
    const auto loss = loss_of(batches, layer);
    if (!loss) return loss.error();
    losses.push_back(*loss);
    return {};
  };
  const auto found = [&]() -> Result<std::vector<double>> { return losses; };
  return probes({look, found, nullptr}, step, options_.probe);
}

Result<ForwardEstimate> ForwardGradient::run(const Candidates& candidates, std::int64_t step) {
  if (candidates.order) return ranked(candidates, step);
  return probes(candidates, step,
                options_.probe == Probe::kTangent ? Probe::kPair : options_.probe);
}

Result<ForwardEstimate> ForwardGradient::ranked(const Candidates& candidates, std::int64_t step) {
  keep();
  Status status;
  for (std::int64_t k = 0; k < options_.directions && status.ok(); ++k) {
    move_to(step, k, epsilon_);
    status = candidates.look();
  }
  put_back();
  HONE_RETURN_IF_ERROR(status);
  const auto order = candidates.order();
  if (!order) return order.error();
  auto coefficients = optim::coefficients_of_ranking(*order, options_.directions);
  if (!coefficients) return coefficients.error();
  ForwardEstimate estimate;
  estimate.coefficients = *std::move(coefficients);
  return estimate;
}

void ForwardGradient::expand(std::span<const EstimateTerm> terms, std::size_t tensor,
                             std::int64_t begin, std::span<float> gradient) const {
  for (const EstimateTerm& term : terms) {
    if (!touched(tensor, first_layer(term.step))) continue;
    for (std::size_t k = 0; k < term.coefficients.size(); ++k) {
      add_direction(options_.noise, key_of(term.step, static_cast<std::int64_t>(k), tensor), begin,
                    static_cast<float>(term.coefficients[k]), gradient);
    }
  }
}

void ForwardGradient::expand(std::span<const EstimateTerm> terms,
                             std::span<std::vector<float>> gradients) const {
  const int threads = session_.pool().size();
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    gradients[i].assign(tensors_[i].fixed ? 0 : tensors_[i].values.size(), 0.0F);
  }
  session_.pool().run([&](int thread) {
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      const auto count = static_cast<std::int64_t>(gradients[i].size());
      const Range share = share_of(count, thread, threads, kDirectionGranule);
      if (share.begin >= share.end) continue;
      expand(terms, i, share.begin,
             std::span(gradients[i])
                 .subspan(static_cast<std::size_t>(share.begin),
                          static_cast<std::size_t>(share.end - share.begin)));
    }
  });
}

Result<GradientPlan> ForwardGradient::plan(const TokenBatch& batch) {
  const bool tangent = options_.probe == Probe::kTangent;
  const int together = tangent ? static_cast<int>(std::min(options_.directions, kTogether)) : 0;
  const std::int64_t layer = options_.layers > 0 ? first_layer(0) : 0;
  return program_of(layer, together).plan(batch);
}

std::int64_t ForwardGradient::compiled_programs() const {
  std::int64_t sum = 0;
  for (const auto& [key, program] : programs_) sum += program->compiled_programs();
  return sum;
}

std::int64_t ForwardGradient::direction_bytes() const {
  std::size_t bytes = 0;
  for (const auto& spans : at_) {
    for (const auto& span : spans) bytes += span.size_bytes();
  }
  return static_cast<std::int64_t>(bytes);
}

void ForwardGradient::profile(bool on) {
  for (auto& [key, program] : programs_) program->profile(on);
}

std::vector<std::pair<std::string, double>> ForwardGradient::profiled() const {
  for (const auto& [key, program] : programs_) {
    auto rows = program->profiled();
    if (!rows.empty()) return rows;
  }
  return {};
}

}  // namespace hone::feedback

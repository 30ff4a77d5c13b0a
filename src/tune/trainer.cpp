// SPDX-License-Identifier: Apache-2.0
#include "tune/trainer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "base/sha256.h"
#include "base/timing.h"
#include "tune/data/dataset.h"

namespace hone::tune {
namespace {

optim::Shape2 as_matrix(const ir::Shape& shape) {
  if (shape.size() < 2) return {1, shape.empty() ? 1 : shape[0]};
  std::int64_t columns = 1;
  for (std::size_t i = 1; i < shape.size(); ++i) columns *= shape[i];
  return {shape[0], columns};
}

}  // namespace

Trainer::Trainer(engine::Session& session, Trained& trained, std::span<const Example> examples,
                 TrainerOptions options)
    : session_(session),
      trained_(trained),
      examples_(examples),
      options_(std::move(options)),
      workspace_(std::make_shared<runtime::Workspace>()),
      gradient_(session, gradient_options(), workspace_),
      forward_(session, forward_options(), workspace_) {
  for (const TrainedTensor& tensor : trained_.tensors) {
    const optim::Shape2 shape = as_matrix(tensor.shape);
    shapes_.push_back(shape);
  }
}

// In a file each tensor's state begins a page: what is released is no other's.
Status Trainer::make_states() {
  constexpr std::size_t kPage = 4096;
  std::vector<std::size_t> sizes;
  std::size_t total = 0;
  for (std::size_t i = 0; i < shapes_.size(); ++i) {
    const bool fixed = trained_.tensors[i].fixed;
    sizes.push_back(fixed ? 0 : options_.rule->state_bytes(shapes_[i], options_.settings));
    total += (sizes.back() + kPage - 1) / kPage * kPage;
  }
  if (!options_.offload.empty()) {
    auto file = ScratchFile::create(options_.offload, total);
    if (!file) return file.error();
    file_ = *std::move(file);
  }
  std::size_t at = 0;
  for (std::size_t i = 0; i < shapes_.size(); ++i) {
    if (options_.offload.empty()) {
      states_.emplace_back(owned_states_.emplace_back(sizes[i]));
    } else {
      states_.push_back(file_.bytes().subspan(at, sizes[i]));
      at += (sizes[i] + kPage - 1) / kPage * kPage;
    }
    // A file is zeros already.
    if (sizes[i] == 0) continue;
    if (options_.rule->initialize == nullptr && !options_.offload.empty()) continue;
    optim::initialize_state(*options_.rule, states_[i], shapes_[i], options_.settings);
    file_.release(states_[i]);
  }
  return {};
}

Result<std::unique_ptr<Trainer>> Trainer::create(engine::Session& session, Trained& trained,
                                                 std::span<const Example> examples,
                                                 TrainerOptions options) {
  if (examples.empty()) {
    return Error{
        ErrorCode::kInvalidArgument,      "there are no examples to learn from", "", "", "",
        "check the file with `hone data`"};
  }
  std::unique_ptr<Trainer> trainer(new Trainer(session, trained, examples, std::move(options)));
  HONE_RETURN_IF_ERROR(trainer->make_states());
  if (trainer->options_.forward) {
    std::vector<feedback::Perturbed> perturbed;
    for (const TrainedTensor& tensor : trained.tensors) {
      const bool backward = trainer->learns_backward(perturbed.size());
      perturbed.push_back({tensor.name, tensor.shape, tensor.values, tensor.fixed || backward});
    }
    if (std::ranges::all_of(perturbed, &feedback::Perturbed::fixed)) {
      return Error{ErrorCode::kInvalidArgument,
                   "the layers that learn by a backward pass leave none for forward passes",
                   "--backward-layers",
                   fmt::format("{}", trainer->options_.backward_layers),
                   "fewer than move (--layers)",
                   "of gradients alone use --method lora"};
    }
    trainer->options_.forward->seed = trainer->options_.seed;
    auto made =
        feedback::ForwardGradient::create(session, trainer->forward_options(), std::move(perturbed),
                                          *trainer->options_.forward, trainer->workspace_);
    if (!made) return made.error();
    trainer->forward_gradient_ = *std::move(made);
  }
  return trainer;
}

feedback::GradientOptions Trainer::gradient_options() {
  feedback::GradientOptions options;
  options.compile = options_.compile;
  options.adapt = trained_.adapt;
  const bool elastic = options_.forward && options_.backward_layers > 0;
  for (std::size_t i = 0; i < trained_.tensors.size(); ++i) {
    if (!elastic || learns_backward(i)) options.trained.push_back(trained_.tensors[i].name);
  }
  options.trains_output = trained_.trains_output;
  options.kept_bytes = options_.kept_bytes;
  options.machine = options_.machine;
  options.rounding = options_.rounding;
  if (options_.update_inside && !options_.forward) {
    std::map<std::string, std::size_t, std::less<>> index;
    for (std::size_t i = 0; i < trained_.tensors.size(); ++i) index[trained_.tensors[i].name] = i;
    options.update = [this, index](std::string_view name) -> passes::UpdateFunction {
      const std::size_t which = index.find(name)->second;
      return [this, which](std::span<float> weights, std::span<const float> gradient,
                           runtime::Worker worker) {
        const bool shares = options_.rule->element_wise;
        if (!shares && worker.thread != 0) return;
        const Range share = shares ? share_of(static_cast<std::int64_t>(weights.size()),
                                              worker.thread, worker.threads, options_.rule->granule)
                                   : Range{0, static_cast<std::int64_t>(weights.size())};
        update_tensor(which, weights, gradient, 1.0F, share, !shares);
      };
    };
  }
  return options;
}

feedback::GradientOptions Trainer::forward_options() {
  feedback::GradientOptions options = gradient_options();
  options.adapt = trained_.adapt_exactly;
  options.trained.clear();
  for (const TrainedTensor& tensor : trained_.tensors) options.trained.push_back(tensor.name);
  options.forward_only = true;
  options.update = nullptr;
  return options;
}

std::int64_t Trainer::steps_of_epoch() const {
  return (static_cast<std::int64_t>(examples_.size()) + options_.batch - 1) / options_.batch;
}

// Example i of the run is example i mod n of the order of epoch i / n.
std::vector<std::size_t> Trainer::examples_of(std::int64_t step) {
  std::vector<std::size_t> chosen;
  const auto count = static_cast<std::int64_t>(examples_.size());
  for (std::int64_t i = step * options_.batch; i < (step + 1) * options_.batch; ++i) {
    if (i / count != epoch_) {
      epoch_ = i / count;
      order_ = epoch_order(examples_.size(), options_.seed, epoch_);
    }
    chosen.push_back(order_[static_cast<std::size_t>(i % count)]);
  }
  return chosen;
}

std::vector<feedback::TokenBatch> Trainer::micro_batches(std::span<const Example* const> examples,
                                                         bool shared) const {
  if (options_.batches) {
    std::vector<std::size_t> places;
    for (const Example* example : examples) {
      places.push_back(static_cast<std::size_t>(example - examples_.data()));
    }
    return options_.batches(places);
  }
  std::int64_t targets = 0;
  for (const Example* example : examples) {
    for (std::size_t i = 1; i < example->learn.size(); ++i) targets += example->learn[i];
  }
  const float weight = 1.0F / static_cast<float>(std::max<std::int64_t>(1, targets));
  if (shared) {
    const Range mine = options_.forward->share(std::ssize(examples));
    examples = examples.subspan(static_cast<std::size_t>(mine.begin),
                                static_cast<std::size_t>(mine.end - mine.begin));
  }
  std::vector<feedback::TokenBatch> batches;
  for (const Example* example : examples) {
    const std::size_t size =
        example->tokens.size() + static_cast<std::size_t>(trained_.virtual_tokens);
    const auto most = static_cast<std::size_t>(options_.micro_tokens);
    if (batches.empty() || batches.back().tokens.size() + size > most) batches.emplace_back();
    batches.back().add(example->tokens, example->learn, weight, trained_.virtual_tokens);
  }
  return batches;
}

void Trainer::clip_and_update(StepReport& report) {
  report.gradient_norm = norm_of_gradients();
  report.skipped = !std::isfinite(report.gradient_norm) || !std::isfinite(report.loss);
  if (report.skipped) return;
  if (forward_gradient_) keep_before_update();
  const bool clips = options_.clip > 0 && report.gradient_norm > options_.clip;
  update(clips ? static_cast<float>(options_.clip / report.gradient_norm) : 1.0F);
}

Status Trainer::accumulate(std::span<const Example* const> examples, StepReport& report) {
  auto batches = micro_batches(examples);
  for (feedback::TokenBatch& batch : batches) {
    batch.draws = {static_cast<std::int32_t>(options_.seed) ^
                       (static_cast<std::int32_t>(&batch - batches.data()) << 20),
                   static_cast<std::int32_t>(step_)};
    auto outcome = gradient_.run(batch);
    if (!outcome) return outcome.error();
    report.loss += outcome->loss;
    report.tokens += static_cast<std::int64_t>(batch.tokens.size());
    report.targets += static_cast<std::int64_t>(batch.rows.size());
    if (batches.size() == 1 || options_.update_inside) {
      current_ = std::move(outcome->gradients);
      continue;
    }
    const bool first = &batch == &batches.front();
    gradients_.resize(trained_.tensors.size());
    session_.pool().run([&](int thread) {
      for (std::size_t i = 0; i < gradients_.size(); ++i) {
        const std::span<const float> from = outcome->gradients[i];
        if (first && thread == 0) gradients_[i].resize(from.size());
      }
      session_.pool().barrier().arrive_and_wait(thread);
      for (std::size_t i = 0; i < gradients_.size(); ++i) {
        const std::span<const float> from = outcome->gradients[i];
        const Range share =
            share_of(static_cast<std::int64_t>(from.size()), thread, session_.pool().size());
        for (auto j = static_cast<std::size_t>(share.begin);
             j < static_cast<std::size_t>(share.end); ++j) {
          gradients_[i][j] = first ? from[j] : gradients_[i][j] + from[j];
        }
      }
    });
  }
  if (batches.size() > 1 && !options_.update_inside) {
    current_.assign(gradients_.begin(), gradients_.end());
  }
  return {};
}

// Each tensor's sum by one thread in the order of its elements: the same bits for any number of
// threads.
double Trainer::norm_of_gradients() {
  std::vector<double> squares(trained_.tensors.size(), 0.0);
  session_.pool().run([&](int thread) {
    std::vector<float> buffer;
    for (std::size_t i = static_cast<std::size_t>(thread); i < squares.size();
         i += static_cast<std::size_t>(session_.pool().size())) {
      double sums[8] = {};
      if (forward_gradient_ && trained_.tensors[i].fixed) continue;
      const auto size = static_cast<std::int64_t>(trained_.tensors[i].values.size());
      for (std::int64_t begin = 0; begin < size; begin += kDrawnPart) {
        const auto values = gradient_part(i, {begin, std::min(begin + kDrawnPart, size)}, buffer);
        for (std::size_t j = 0; j < values.size(); ++j) {
          sums[j % 8] += static_cast<double>(values[j]) * static_cast<double>(values[j]);
        }
      }
      for (const double sum : sums) squares[i] += sum;
    }
  });
  double total = 0;
  for (const double square : squares) total += square;
  return std::sqrt(total);
}

namespace {

std::span<const float> gradient_of(std::span<const float> whole, Range range) {
  return whole.subspan(static_cast<std::size_t>(range.begin),
                       static_cast<std::size_t>(range.end - range.begin));
}

}  // namespace

// A share in parts of a few megabytes of state, each released after its update: elements do not
// depend on each other, so that the bits are those of one part.
void Trainer::update_tensor(std::size_t index, std::span<float> weights,
                            std::span<const float> gradient, float gradient_scale, Range share,
                            bool whole) {
  if (options_.offload.empty() || whole) {
    update_part(index, weights, gradient_of(gradient, share), gradient_scale, share, whole);
    if (share.begin < share.end) file_.release(states_[index]);
    return;
  }
  const std::int64_t part = kPartElements / options_.rule->granule * options_.rule->granule;
  for (std::int64_t begin = share.begin; begin < share.end; begin += part) {
    const Range range{begin, std::min(begin + part, share.end)};
    update_part(index, weights, gradient_of(gradient, range), gradient_scale, range, false);
    const optim::StateRange state = optim::state_range(*options_.rule, shapes_[index],
                                                       options_.settings, range.begin, range.end);
    file_.release(states_[index].subspan(state.offset, state.size));
  }
}

void Trainer::update_part(std::size_t index, std::span<float> weights,
                          std::span<const float> gradient, float gradient_scale, Range share,
                          bool whole) {
  if (share.begin >= share.end) return;
  const std::span<std::byte> state = states_[index];
  optim::StateRange range{0, state.size()};
  if (!whole) {
    range = optim::state_range(*options_.rule, shapes_[index], options_.settings, share.begin,
                               share.end);
  }
  const auto first = static_cast<std::size_t>(share.begin);
  const auto count = static_cast<std::size_t>(share.end - share.begin);
  // Vectors (norms, biases) do not decay: they have no direction to shrink (as GPT-2's training).
  const double decay = shapes_[index].is_matrix() ? options_.weight_decay : 0.0;
  const double rate = learning_rate_ * (learns_backward(index) ? options_.backward_factor : 1);
  options_.rule->update({weights.subspan(first, count), gradient,
                         state.subspan(range.offset, range.size), shapes_[index], step_ + 1, rate,
                         decay, gradient_scale, options_.settings});
}

void Trainer::update(float gradient_scale) {
  const int threads = session_.pool().size();
  session_.pool().run([&](int thread) {
    std::vector<float> buffer;
    for (std::size_t i = 0; i < trained_.tensors.size(); ++i) {
      if (trained_.tensors[i].fixed) continue;
      const std::span<float> weights = trained_.tensors[i].values;
      const auto count = static_cast<std::int64_t>(weights.size());
      if (draws_gradients()) {
        const Range share = share_of(count, thread, threads, kDrawnPart);
        for (std::int64_t begin = share.begin; begin < share.end; begin += kDrawnPart) {
          const Range part{begin, std::min(begin + kDrawnPart, share.end)};
          update_part(i, weights, gradient_part(i, part, buffer), gradient_scale, part, false);
        }
        if (share.begin < share.end) file_.release(states_[i]);
      } else if (options_.rule->element_wise) {
        const Range share = share_of(count, thread, threads, options_.rule->granule);
        update_tensor(i, weights, current_[i], gradient_scale, share, false);
      } else if (static_cast<int>(i % static_cast<std::size_t>(threads)) == thread) {
        update_tensor(i, weights, current_[i], gradient_scale, {0, count}, true);
      }
    }
  });
}

Result<StepReport> Trainer::step() {
  const double start = seconds_now();
  StepReport report;
  report.step = step_ + 1;
  learning_rate_ = optim::scheduled(options_.schedule, step_ + 1) * rate_factor_;
  report.learning_rate = learning_rate_;
  std::vector<const Example*> chosen;
  const std::vector<std::size_t> indices = examples_of(step_);
  for (const std::size_t index : indices) chosen.push_back(&examples_[index]);
  if (forward_gradient_) {
    if (options_.backward_layers > 0) HONE_RETURN_IF_ERROR(add_backward(micro_batches(chosen)));
    HONE_RETURN_IF_ERROR(
        estimate(indices, micro_batches(chosen, options_.forward->shares_examples()), report));
  } else {
    HONE_RETURN_IF_ERROR(accumulate(chosen, report));
    if (!options_.update_inside && !report.skipped) clip_and_update(report);
  }
  ++step_;
  report.seconds = seconds_now() - start;
  return report;
}

Result<double> Trainer::evaluate(std::span<const Example> examples) {
  std::vector<const Example*> chosen;
  for (const Example& example : examples) chosen.push_back(&example);
  double loss = 0;
  for (const feedback::TokenBatch& batch : micro_batches(chosen)) {
    if (batch.rows.empty()) continue;
    auto outcome = forward_.run(batch);
    if (!outcome) return outcome.error();
    loss += outcome->loss;
  }
  return loss;
}

std::vector<CheckpointTensor> Trainer::state() const {
  if (!forward_gradient_) return tensor_state();
  std::vector<CheckpointTensor> tensors;
  if (options_.backward_layers > 0) tensors = tensor_state();
  tensors.push_back({"coefficients", std::as_bytes(std::span(history_))});
  return tensors;
}

std::vector<CheckpointTensor> Trainer::tensor_state() const {
  std::vector<CheckpointTensor> tensors;
  for (std::size_t i = 0; i < trained_.tensors.size(); ++i) {
    const TrainedTensor& tensor = trained_.tensors[i];
    tensors.push_back({tensor.name, std::as_bytes(tensor.values)});
    if (states_[i].empty()) continue;
    tensors.push_back({tensor.name + ".state", states_[i]});
    if (options_.offload.empty()) continue;
    tensors.back().release = [this](std::span<const std::byte> part) { file_.release(part); };
  }
  return tensors;
}

void Trainer::profile(bool on) {
  if (forward_gradient_) {
    forward_gradient_->profile(on);
  } else {
    gradient_.profile(on);
  }
}

std::vector<std::pair<std::string, double>> Trainer::profiled() const {
  return forward_gradient_ ? forward_gradient_->profiled() : gradient_.profiled();
}

Status Trainer::restore(const Checkpoint& checkpoint) {
  if (forward_gradient_ && options_.backward_layers == 0) return replay(checkpoint);
  // All are looked up before the first is written: a checkpoint of another run changes nothing.
  std::vector<std::span<const std::byte>> found;
  for (const CheckpointTensor& tensor : tensor_state()) {
    const auto bytes = checkpoint.find(tensor.name, tensor.bytes.size());
    if (!bytes) return bytes.error().in(checkpoint.path());
    found.push_back(*bytes);
  }
  std::size_t at = 0;
  for (std::size_t i = 0; i < trained_.tensors.size(); ++i) {
    const std::span<std::byte> values = std::as_writable_bytes(trained_.tensors[i].values);
    std::ranges::copy(found[at++], values.begin());
    if (states_[i].empty()) continue;
    const std::span<const std::byte> from = found[at++];
    constexpr std::size_t kPart = std::size_t{4} << 20;
    for (std::size_t done = 0; done < from.size(); done += kPart) {
      const std::size_t count = std::min(kPart, from.size() - done);
      const std::span<std::byte> to = states_[i].subspan(done, count);
      std::ranges::copy(from.subspan(done, count), to.begin());
      file_.release(to);
    }
  }
  step_ = checkpoint.step();
  return forward_gradient_ ? restore_history(checkpoint) : Status();
}

std::string Trainer::hash() const {
  Sha256 hash;
  for (const TrainedTensor& tensor : trained_.tensors) hash.add(std::as_bytes(tensor.values));
  return hash.finish();
}

}  // namespace hone::tune

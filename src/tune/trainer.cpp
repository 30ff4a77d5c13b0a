// SPDX-License-Identifier: Apache-2.0
#include "tune/trainer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>

#include "base/sha256.h"
#include "base/timing.h"
#include "tune/data/dataset.h"

namespace hone::tune {
namespace {

// Of an offloaded state that are worked on at a time, by a thread: 4 MB with two numbers each.
// Elements of an estimated gradient that are drawn at a time: half of a second-level cache, and a
// multiple of every rule's granule.
constexpr std::int64_t kDrawnPart = std::int64_t{1} << 16;
constexpr std::int64_t kPartElements = std::int64_t{1} << 19;

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
      perturbed.push_back({tensor.name, tensor.shape, tensor.values, tensor.fixed});
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
  for (const TrainedTensor& tensor : trained_.tensors) options.trained.push_back(tensor.name);
  options.trains_output = trained_.trains_output;
  options.kept_bytes = options_.kept_bytes;
  options.machine = options_.machine;
  options.rounding = options_.rounding;
  if (options_.update_inside) {
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
  options_.rule->update({weights.subspan(first, count), gradient,
                         state.subspan(range.offset, range.size), shapes_[index], step_ + 1,
                         learning_rate_, decay, gradient_scale, options_.settings});
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
    HONE_RETURN_IF_ERROR(
        estimate(indices, micro_batches(chosen, options_.forward->shares_examples()), report));
  } else {
    HONE_RETURN_IF_ERROR(accumulate(chosen, report));
  }
  if (!options_.update_inside && !report.skipped) clip_and_update(report);
  ++step_;
  report.seconds = seconds_now() - start;
  return report;
}

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

// What judges run is not measured, nor what several processes wait for: the roofline stands in.
Result<double> Trainer::measure_forward_step(const feedback::TokenBatch& batch) {
  if (options_.judging || options_.forward->ranks.size > 1) {
    const auto plan = this->plan();
    if (!plan) return plan.error();
    return plan->cost.seconds;
  }
  const auto run = [&] { return forward_gradient_->run(std::span(&batch, 1), 0); };
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
  return forward_gradient_ ? forward_gradient_->plan(largest) : gradient_.plan(largest);
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

std::vector<CheckpointTensor> Trainer::state() const {
  std::vector<CheckpointTensor> tensors;
  if (forward_gradient_) return {{"coefficients", std::as_bytes(std::span(history_))}};
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
  if (forward_gradient_) return replay(checkpoint);
  // All are looked up before the first is written: a checkpoint of another run changes nothing.
  std::vector<std::span<const std::byte>> found;
  for (const CheckpointTensor& tensor : state()) {
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
  return {};
}

std::string Trainer::hash() const {
  Sha256 hash;
  for (const TrainedTensor& tensor : trained_.tensors) hash.add(std::as_bytes(tensor.values));
  return hash.finish();
}

}  // namespace hone::tune

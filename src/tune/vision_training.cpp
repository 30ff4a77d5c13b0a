// SPDX-License-Identifier: Apache-2.0
#include "tune/vision_training.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <ctime>

namespace hone::tune {
namespace {

constexpr std::size_t kPortion = 250;  // images of a pass that only predicts

double processor_seconds() {
  return static_cast<double>(std::clock()) / static_cast<double>(CLOCKS_PER_SEC);
}

}  // namespace

Result<VisionOutcome> train_vision(Network& network, const VisionModel& model,
                                   const VisionData& train, const VisionData& test,
                                   const VisionRun& run) {
  ElasticTrainer trainer(network, model, run.options);
  const auto batch = static_cast<std::size_t>(std::min(run.batch, train.count()));
  const std::int64_t steps = train.count() / static_cast<std::int64_t>(batch);
  VisionOutcome out;
  for (std::int64_t epoch = 0, step = 0; epoch < run.epochs; ++epoch) {
    const auto order = shuffled(train.count(), run.options.seed, static_cast<std::uint64_t>(epoch));
    double sum = 0;
    for (std::int64_t i = 0; i < steps; ++i, ++step) {
      const VisionData part = train.batch(order, static_cast<std::size_t>(i) * batch, batch);
      const double left =
          1 - 0.9 * static_cast<double>(step) / static_cast<double>(steps * run.epochs);
      trainer.set_rates(run.options.head_rate * left, run.options.tail_rate * left);
      const double begin = processor_seconds();
      const auto loss = trainer.step(part.features, part.targets);
      if (!loss) return loss.error();
      // The first step compiles.
      if (step > 0) out.step_seconds += processor_seconds() - begin;
      sum += *loss / static_cast<double>(steps);
    }
    if (epoch == 0) out.first_loss = sum;
    out.last_loss = sum;
  }
  out.step_seconds /= static_cast<double>(std::max<std::int64_t>(1, steps * run.epochs - 1));
  const auto memory = trainer.memory(static_cast<std::int64_t>(batch));
  if (!memory) return memory.error();
  out.bytes = memory->in_place();
  out.beside = memory->beside;
  const auto accuracy = vision_accuracy(network, model, test.features, test.targets);
  if (!accuracy) return accuracy.error();
  out.accuracy = *accuracy;
  return out;
}

Result<std::vector<VisionOutcome>> compare_tails(
    ThreadPool& pool, const VisionTask& task, std::span<const std::int64_t> tails, Network* start,
    const std::function<void(std::string_view line)>& tell) {
  std::vector<VisionOutcome> all;
  const auto layers = std::ssize(task.model.layers);
  for (const std::int64_t tail : tails) {
    Network network(pool);
    HONE_RETURN_IF_ERROR(initialize(network, task.model, task.run.options.seed));
    for (const std::string& name : network.names()) {
      if (start != nullptr) std::ranges::copy(start->values(name), network.values(name).begin());
    }
    VisionRun run = task.run;
    run.options.cut = tail < 0 ? 0 : layers - tail;
    const auto outcome = train_vision(network, task.model, task.train, task.test, run);
    if (!outcome) return outcome.error();
    all.push_back(*outcome);
    tell(fmt::format("{}, {} of {} layers by backpropagation: {:.2f} %, loss {:.3f} to {:.3f}",
                     task.name, layers - run.options.cut, layers, 100 * outcome->accuracy,
                     outcome->first_loss, outcome->last_loss));
  }
  return all;
}

std::vector<std::int8_t> mantissas(std::span<const float> features) {
  std::vector<std::int8_t> out;
  for (const float x : features) {
    out.push_back(static_cast<std::int8_t>(std::lround(std::clamp(x, 0.0F, 1.0F) * 127)));
  }
  return out;
}

VisionOutcome train_integers(const VisionData& train, const VisionData& test,
                             const IntegerRun& run) {
  integer::IntegerLeNet network(run.options);
  const auto batch = static_cast<std::size_t>(std::min(run.batch, train.count()));
  const std::int64_t steps = train.count() / static_cast<std::int64_t>(batch);
  VisionOutcome out;
  for (std::int64_t epoch = 0; epoch < run.epochs; ++epoch) {
    const auto order = shuffled(train.count(), run.options.seed, static_cast<std::uint64_t>(epoch));
    network.set_steps(
        run.options.zeros + static_cast<std::int32_t>((run.last_zeros - run.options.zeros) * epoch /
                                                      std::max<std::int64_t>(1, run.epochs - 1)),
        run.options.bits, run.options.tail_bits);
    for (std::int64_t i = 0; i < steps; ++i) {
      const VisionData part = train.batch(order, static_cast<std::size_t>(i) * batch, batch);
      const std::vector<std::int8_t> images = mantissas(part.features);
      const double begin = processor_seconds();
      network.step(images, part.targets);
      out.step_seconds += processor_seconds() - begin;
    }
  }
  out.step_seconds /= static_cast<double>(std::max<std::int64_t>(1, steps * run.epochs));
  out.bytes = network.bytes();
  const std::vector<std::int8_t> images = mantissas(test.features);
  std::int64_t right = 0;
  for (std::size_t begin = 0; begin < test.targets.size(); begin += kPortion) {
    const std::size_t count = std::min(kPortion, test.targets.size() - begin);
    const auto width = static_cast<std::size_t>(test.width);
    right += network.right(std::span(images).subspan(begin * width, count * width),
                           std::span(test.targets).subspan(begin, count));
  }
  out.accuracy =
      static_cast<double>(right) / static_cast<double>(std::max<std::int64_t>(1, test.count()));
  return out;
}

}  // namespace hone::tune

// SPDX-License-Identifier: Apache-2.0
#include "tune/class_tasks.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "base/random.h"
#include "optim/measure.h"

namespace hone::tune {
namespace {

constexpr std::array<std::int64_t, 1> kHead = {0};

std::size_t width_of(const ClassTask& task) { return task.features.size() / task.labels.size(); }

Status epoch(Classifier& model, Stepper& stepper, const ClassTask& task, const ClassTaskRun& run,
             std::uint64_t stream) {
  std::vector<std::size_t> order(task.labels.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  Random random(run.seed, stream);
  for (std::size_t i = order.size(); i > 1; --i) {
    std::swap(order[i - 1], order[random.below(static_cast<std::uint32_t>(i))]);
  }
  const auto rows = static_cast<std::size_t>(run.batch);
  const std::size_t width = width_of(task);
  for (std::size_t at = 0; at + rows <= order.size(); at += rows) {
    ClassifierBatch batch;
    batch.labels.resize(1);
    batch.labels[0].weights.assign(rows, 1.0F / static_cast<float>(rows));
    for (std::size_t i = at; i < at + rows; ++i) {
      const auto image = std::span(task.features).subspan(order[i] * width, width);
      batch.features.insert(batch.features.end(), image.begin(), image.end());
      batch.labels[0].targets.push_back(task.labels[order[i]]);
    }
    const auto outcome = model.gradients(kHead, batch);
    if (!outcome) return outcome.error();
    stepper.step(outcome->gradients, run.rate, 0);
  }
  return {};
}

}  // namespace

std::vector<ClassTask> class_tasks(const Images& images, std::int64_t most) {
  std::vector<ClassTask> tasks;
  for (std::int64_t i = 0; i < images.count(); ++i) {
    const std::int32_t label = images.labels[static_cast<std::size_t>(i)];
    const auto index = static_cast<std::size_t>(label / 2);
    if (index >= tasks.size()) tasks.resize(index + 1);
    if (std::ssize(tasks[index].labels) >= most) continue;
    const auto image = images.image(i);
    tasks[index].features.insert(tasks[index].features.end(), image.begin(), image.end());
    tasks[index].labels.push_back(label);
  }
  return tasks;
}

Result<ClassTaskOutcome> learn_in_turn(ThreadPool& pool, const std::vector<ClassTask>& train,
                                       const std::vector<ClassTask>& test,
                                       const optim::UpdateRule& rule,
                                       const optim::Settings& settings, const ClassTaskRun& run) {
  const std::size_t tasks = train.size();
  const bool filled = std::ranges::none_of(train, [](const auto& t) { return t.labels.empty(); });
  if (tasks < 2 || test.size() != tasks || !filled) {
    return Error{ErrorCode::kInvalidArgument,
                 "there are no tasks to learn in turn",
                 "",
                 std::to_string(tasks) + " tasks",
                 "two or more, each with examples, and as many to test",
                 ""};
  }
  const auto classes = static_cast<std::int64_t>(2 * tasks);
  auto model = Classifier::make(
      pool, {static_cast<std::int64_t>(width_of(train[0])), run.hidden, 2, {classes}}, run.seed);
  if (!model) return model.error();
  Stepper stepper(model->network(), model->parameters_of(kHead), rule, settings);
  const auto count = static_cast<double>(tasks);
  std::vector<double> after(tasks);
  ClassTaskOutcome out;
  for (std::size_t task = 0; task < tasks; ++task) {
    HONE_RETURN_IF_ERROR(epoch(*model, stepper, train[task], run, 77 + task));
    const auto right = model->accuracy(0, test[task].features, test[task].labels);
    if (!right) return right.error();
    after[task] = *right;
    out.current += *right / count;
  }
  for (std::size_t task = 0; task < tasks; ++task) {
    const auto right = model->accuracy(0, test[task].features, test[task].labels);
    if (!right) return right.error();
    out.final += *right / count;
    if (task + 1 < tasks) out.forgetting += (after[task] - *right) / (count - 1);
  }
  for (const char* name : {"layer.0.weight", "layer.1.weight"}) {
    const optim::Shape2 shape{model->network().shape(name)[0], model->network().shape(name)[1]};
    const auto values = model->network().values(name);
    out.stable_rank += optim::stable_rank(values, shape) / 2;
    out.effective_rank += optim::effective_rank(values, shape) / 2;
  }
  return out;
}

Result<double> rate_reaching(double target, double least, double most, std::int64_t tries,
                             const std::function<Result<double>(double rate)>& measure) {
  for (std::int64_t i = 0; i < tries; ++i) {
    const double rate = std::sqrt(least * most);
    const auto reached = measure(rate);
    if (!reached) return reached.error();
    (*reached < target ? least : most) = rate;
  }
  return std::sqrt(least * most);
}

}  // namespace hone::tune

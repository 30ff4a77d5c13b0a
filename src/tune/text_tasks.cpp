// SPDX-License-Identifier: Apache-2.0
#include "tune/text_tasks.h"

#include <algorithm>

#include "base/random.h"
#include "optim/registry.h"
#include "tune/labelled_text.h"

namespace hone::tune {
namespace {

void put(const LabelledText& text, std::int64_t width, std::int64_t most,
         std::vector<float>& features, std::vector<std::int32_t>& labels) {
  const std::int64_t count = std::min(most, text.count());
  const auto columns = static_cast<std::size_t>(width);
  features.resize(static_cast<std::size_t>(count) * columns);
  for (std::int64_t i = 0; i < count; ++i) {
    const auto from = static_cast<std::size_t>(i * text.count() / count);
    const auto to = static_cast<std::size_t>(i) * columns;
    hash_words(text.texts[from], std::span(features).subspan(to, columns));
    labels.push_back(text.labels[from]);
  }
}

}  // namespace

Result<std::vector<TextTask>> read_text_tasks(const std::string& folder, std::int64_t features,
                                              std::int64_t most) {
  struct Source {
    const char *name, *train, *test;  // no test: every tenth line of train
    std::int64_t classes;
  };
  constexpr Source kSources[] = {{"SST-2", "sst2-train.tsv", "sst2-dev.tsv", 2},
                                 {"Subj", "subj.all", nullptr, 2},
                                 {"TREC", "TREC.train.all", "TREC.test.all", 6}};
  std::vector<TextTask> tasks;
  for (const Source& source : kSources) {
    auto train = read_labelled_text(folder + "/" + source.train);
    if (!train) return train.error();
    auto test = source.test != nullptr ? read_labelled_text(folder + "/" + source.test)
                                       : Result<LabelledText>(take_every(*train, 10));
    if (!test) return test.error();
    TextTask& task = tasks.emplace_back();
    task.name = source.name;
    task.classes = source.classes;
    put(*train, features, most, task.features, task.labels);
    put(*test, features, most, task.test_features, task.test_labels);
    const auto fits = [&](const std::vector<std::int32_t>& labels) {
      return !labels.empty() && std::ranges::max(labels) < source.classes;
    };
    if (fits(task.labels) && fits(task.test_labels)) continue;
    return Error{ErrorCode::kCorrupt,
                 "the examples of a task are missing or have labels that it does not have",
                 folder,
                 source.name,
                 std::to_string(source.classes) + " classes",
                 ""};
  }
  return tasks;
}

MultitaskBatch text_batch(std::span<const TextTask> tasks, std::int64_t rows, std::uint64_t seed,
                          std::int64_t step, bool every_label) {
  MultitaskBatch out;
  out.tasks.resize(tasks.size());
  out.joint.labels.resize(tasks.size());
  Random random(seed, static_cast<std::uint64_t>(step));
  const auto own_rows = static_cast<std::size_t>(rows);
  const std::size_t all_rows = own_rows * tasks.size();
  const auto weight = 1.0F / static_cast<float>(all_rows);
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    const TextTask& task = tasks[i];
    const std::size_t width = task.features.size() / task.labels.size();
    ClassifierBatch& own = out.tasks[i];
    own.labels.resize(1);
    own.labels[0].weights.assign(own_rows, weight);
    for (std::size_t row = 0; row < own_rows; ++row) {
      const std::size_t at = random.below(static_cast<std::uint32_t>(task.labels.size()));
      const auto x = std::span(task.features).subspan(at * width, width);
      own.features.insert(own.features.end(), x.begin(), x.end());
      own.labels[0].targets.push_back(task.labels[at]);
    }
    out.joint.features.insert(out.joint.features.end(), own.features.begin(), own.features.end());
    ClassifierBatch::Labels& labels = out.joint.labels[i];
    labels.targets.assign(all_rows, 0);
    labels.weights.assign(all_rows, every_label ? weight : 0.0F);
    const auto begin = static_cast<std::ptrdiff_t>(i * own_rows);
    std::ranges::copy(own.labels[0].targets, labels.targets.begin() + begin);
    std::ranges::copy(own.labels[0].weights, labels.weights.begin() + begin);
  }
  for (std::size_t i = 0; every_label && i < tasks.size(); ++i) {
    out.tasks[i] = {out.joint.features, {out.joint.labels[i]}};
  }
  return out;
}

Result<std::vector<double>> learn_tasks(ThreadPool& pool, std::span<const TextTask> tasks,
                                        const TextRun& run) {
  ClassifierOptions options;
  options.features = std::ssize(tasks[0].features) / std::ssize(tasks[0].labels);
  options.hidden = run.hidden;
  std::vector<std::int64_t> heads;
  for (const TextTask& task : tasks) {
    if (run.alone < 0 || run.alone == std::ssize(options.classes)) {
      heads.push_back(std::ssize(options.classes));
    }
    options.classes.push_back(task.classes);
  }
  auto model = Classifier::make(pool, options, run.seed);
  if (!model) return model.error();
  MultitaskGradient gradient(*model, std::ssize(tasks), run.gradient);
  const optim::UpdateRule& rule = *optim::find_rule("adamw");
  Stepper stepper(model->network(), model->parameters_of(heads), rule,
                  optim::Settings(rule.defaults));
  for (std::int64_t step = 0; step < run.steps; ++step) {
    const MultitaskBatch batch = text_batch(tasks, run.rows, run.seed, step);
    if (run.alone < 0) {
      const auto all = gradient.of(batch, step);
      if (!all) return all.error();
      stepper.step(*all, run.rate, 0, 1);
    } else {
      const auto one = model->gradients(heads, batch.tasks[static_cast<std::size_t>(run.alone)]);
      if (!one) return one.error();
      stepper.step(one->gradients, run.rate, 0, 1);
    }
  }
  std::vector<double> out;
  for (const std::int64_t head : heads) {
    const TextTask& task = tasks[static_cast<std::size_t>(head)];
    const auto right = model->accuracy(head, task.test_features, task.test_labels);
    if (!right) return right.error();
    out.push_back(*right);
  }
  return out;
}

}  // namespace hone::tune

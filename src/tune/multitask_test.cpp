// Heads on one trunk: gradients against differences, and the four ways to be sharp where they meet.
// SPDX-License-Identifier: Apache-2.0
#include "tune/multitask.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/random.h"
#include "tune/text_tasks.h"

namespace hone::tune {
namespace {

// Three tasks of features drawn at random, whose label is the sign of one of them.
std::vector<TextTask> tasks_of(std::int64_t rows, std::int64_t width) {
  std::vector<TextTask> tasks(3);
  Random random(7);
  for (std::size_t task = 0; task < tasks.size(); ++task) {
    for (std::int64_t row = 0; row < rows; ++row) {
      for (std::int64_t i = 0; i < width; ++i) tasks[task].features.push_back(random.normal());
      const std::size_t at = tasks[task].features.size() - 1 - task;
      tasks[task].labels.push_back(tasks[task].features[at] > 0 ? 1 : 0);
    }
    tasks[task].test_features = tasks[task].features;
    tasks[task].test_labels = tasks[task].labels;
  }
  return tasks;
}

double distance(std::span<const std::span<const float>> a,
                const std::vector<std::vector<float>>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    for (std::size_t j = 0; j < a[i].size(); ++j) sum += std::pow(a[i][j] - b[i][j], 2);
  }
  return std::sqrt(sum);
}

// With no step up, all four are the joint gradient, but for the order of sums; with one they
// differ, and the weights are afterwards the same bits.
TEST(Multitask, MethodsMeetWithoutAStepUp) {
  ThreadPool pool(1);
  const auto tasks = tasks_of(40, 6);
  auto model = Classifier::make(pool, {6, 16, 1, {2, 2, 2}}, 3);
  ASSERT_TRUE(model.ok()) << model.error().text();
  const MultitaskBatch batch = text_batch(tasks, 8, 1, 0);
  const auto before = model->network().values("layer.0.weight");
  const std::vector<float> weights(before.begin(), before.end());
  std::vector<std::vector<float>> joint;
  for (const Sharpness sharpness :
       {Sharpness::kNone, Sharpness::kGlobal, Sharpness::kPerTask, Sharpness::kSamo}) {
    MultitaskGradient flat(*model, 3, {sharpness, 0, {}, 1});
    const auto at_rest = flat.of(batch, 1);
    ASSERT_TRUE(at_rest.ok()) << at_rest.error().text();
    if (joint.empty()) {
      for (const auto& each : *at_rest) joint.emplace_back(each.begin(), each.end());
    }
    // About 500 terms of size 0.1 in f32.
    EXPECT_LT(distance(*at_rest, joint), 1e-5);
    MultitaskGradient sharp(*model, 3, {sharpness, 0.2, {}, 1});
    const auto above = sharp.of(batch, 1);
    ASSERT_TRUE(above.ok()) << above.error().text();
    if (sharpness != Sharpness::kNone) {
      EXPECT_GT(distance(*above, joint), 1e-3);
    }
    EXPECT_TRUE(std::ranges::equal(model->network().values("layer.0.weight"), weights));
  }
}

// (loss(w + h) - loss(w - h)) / 2 h of one weight of each parameter; h^2 and the rounding of a loss
// of about 1 divided by h are both below 1e-3.
TEST(Classifier, GradientsAreDifferences) {
  ThreadPool pool(1);
  const MultitaskBatch batch = text_batch(tasks_of(40, 6), 8, 1, 0);
  auto model = Classifier::make(pool, {6, 16, 2, {2, 2, 2}}, 3);
  ASSERT_TRUE(model.ok());
  const std::vector<std::int64_t> heads = {0, 1, 2};
  const auto outcome = model->gradients(heads, batch.joint);
  ASSERT_TRUE(outcome.ok()) << outcome.error().text();
  std::vector<double> first;
  for (const auto& gradient : outcome->gradients) first.push_back(gradient[1]);
  const auto names = model->parameters_of(heads);
  for (std::size_t i = 0; i < names.size(); ++i) {
    float& weight = model->network().values(names[i])[1];
    const float kept = weight;
    double sides[2] = {};
    for (const int side : {0, 1}) {
      weight = kept + (side == 0 ? 1e-2F : -1e-2F);
      const auto losses = model->losses(heads, batch.joint);
      ASSERT_TRUE(losses.ok());
      for (const double loss : losses->losses) sides[side] += loss;
    }
    weight = kept;
    EXPECT_NEAR((sides[0] - sides[1]) / 2e-2, first[i], 1e-3) << names[i];
  }
}

TEST(Multitask, TasksAreLearned) {
  ThreadPool pool(1);
  const auto tasks = tasks_of(100, 6);
  TextRun run;
  run.hidden = 16;
  run.steps = 150;
  run.rate = 1e-2;
  run.gradient.sharpness = Sharpness::kSamo;
  const auto accuracy = learn_tasks(pool, tasks, run);
  ASSERT_TRUE(accuracy.ok()) << accuracy.error().text();
  ASSERT_EQ(accuracy->size(), 3U);
  for (const double each : *accuracy) EXPECT_GT(each, 0.9);
  run.alone = 1;
  EXPECT_EQ(learn_tasks(pool, tasks, run)->size(), 1U);
}

}  // namespace
}  // namespace hone::tune

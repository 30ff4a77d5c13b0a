// Small trainings: a loud channel changes no bit of f32, a target stops; probes of rounding add up.
// SPDX-License-Identifier: Apache-2.0
#include "tune/small_training.h"

#include <gtest/gtest.h>

#include <cmath>

#include "passes/transform/quantize_training.h"
#include "tune/block_probe.h"
#include "tune/correlation.h"

namespace hone::tune {
namespace {

SmallModelOptions tiny() {
  SmallModelOptions options;
  options.layers = 2;
  options.hidden = 64;
  options.feed_forward = 96;
  options.sequences = 4;
  options.length = 32;
  return options;
}

SmallCurve train(const Arithmetic& arithmetic, std::int64_t steps, double target = 0) {
  static ThreadPool pool(2);
  auto model = SmallModel::make(pool, tiny(), 5);
  EXPECT_TRUE(model.ok());
  SmallTraining how;
  how.learning_rate = 3e-3;
  how.steps = steps;
  how.warmup = 5;
  how.target = target;
  const auto curve = train_small(*model, grammar_text(3, 20000), arithmetic, how);
  EXPECT_TRUE(curve.ok()) << curve.error().text();
  return *curve;
}

TEST(SmallTraining, ALoudChannelIsNothingToF32AndMuchToCodes) {
  const auto loud = [](const ir::Graph& graph) { return with_loud_channel(graph, 3, 64); };
  const auto codes = [](const ir::Graph& graph) {
    return passes::quantize_training(graph, {0, passes::ScaleOf::kTensor});
  };
  const SmallCurve plain = train({}, 20);
  EXPECT_EQ(train({"loud", loud, nullptr}, 20).losses, plain.losses);
  EXPECT_NE(train({"loud codes", loud, codes}, 20).losses, plain.losses);
}

TEST(SmallTraining, StopsAtTheTarget) {
  const SmallCurve curve = train({}, 60, 3.5);
  EXPECT_TRUE(curve.reached);
  EXPECT_LT(curve.losses.size(), 60u);
  EXPECT_LE(curve.running, 3.5);
  EXPECT_FALSE(train({}, 5, 0.1).reached);
}

TEST(BlockProbe, ErrorsAddUp) {
  ThreadPool pool(2);
  auto model = SmallModel::make(pool, tiny(), 5);
  ASSERT_TRUE(model.ok());
  const ByteText text = grammar_text(3, 20000);
  passes::QatOptions none;
  none.weight_bits = none.activation_bits = 0;
  const auto clean = probe_rounding(*model, text, none, 1);
  ASSERT_TRUE(clean.ok()) << clean.error().text();
  for (const BlockErrors& block : clean->blocks) EXPECT_EQ(block.total, 0);
  EXPECT_EQ(clean->loss_gained, 0);
  passes::QatOptions four;
  four.activation_bits = 4;
  const auto probe = probe_rounding(*model, text, four, 1);
  ASSERT_TRUE(probe.ok()) << probe.error().text();
  ASSERT_EQ(probe->blocks.size(), 2u);
  EXPECT_EQ(probe->blocks[0].propagated, 0) << "nothing came in";
  EXPECT_GT(probe->blocks[1].propagated, 0);
  for (const BlockErrors& block : probe->blocks) {
    EXPECT_GT(block.total, 0);
    EXPECT_NEAR(block.total, block.propagated + block.local + block.together, 1e-6 * block.total);
  }
  // An untrained model's activations are about normal: 3, and a largest of 64 some 2.4 deviations
  // over a median of 0.67. Of a product of two normal numbers, one of the four inputs of a block, 9
  // and some 14.
  EXPECT_NEAR(probe->kurtosis, 4.5, 1);
  EXPECT_NEAR(probe->max_to_median, 6, 2);
}

TEST(RankCorrelation, OfKnownColumns) {
  const std::vector<double> a = {1, 2, 3, 4, 5}, up = {2, 4, 8, 16, 32}, down = {5, 4, 3, 2, 1};
  EXPECT_DOUBLE_EQ(rank_correlation(a, up), 1);
  EXPECT_DOUBLE_EQ(rank_correlation(a, down), -1);
  EXPECT_DOUBLE_EQ(rank_correlation(a, std::vector<double>(5, 1.0)), 0);
  EXPECT_DOUBLE_EQ(rank_correlation({}, {}), 0);
  // Ranks 1 2.5 2.5 4 against 1 2 3 4: 4.5 / sqrt(4.5 * 5).
  EXPECT_NEAR(rank_correlation(std::vector<double>{1, 2, 2, 3}, std::vector<double>{1, 2, 3, 4}),
              4.5 / std::sqrt(4.5 * 5), 1e-12);
  const Correlation interval = resampled_correlation(a, std::vector<double>{1, 3, 2, 5, 4}, 1);
  EXPECT_DOUBLE_EQ(interval.value, 0.8);
  EXPECT_LT(interval.low, 0.8);
  EXPECT_GT(interval.high, 0.8);
}

}  // namespace
}  // namespace hone::tune

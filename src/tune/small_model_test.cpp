// The small model learns, gives the same numbers again, and its texts are what they say.
// SPDX-License-Identifier: Apache-2.0
#include "tune/small_model.h"

#include <gtest/gtest.h>

#include <cmath>

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

// Untrained it knows nothing: log 256 nats a byte, but for the small weights' part; after some
// steps at least that most bytes do not occur.
TEST(SmallModel, LearnsAndRepeats) {
  ThreadPool pool(2);
  const ByteText text = grammar_text(3, 20000);
  const auto train = [&](int steps) {
    auto model = SmallModel::make(pool, tiny(), 5);
    EXPECT_TRUE(model.ok()) << model.error().text();
    const optim::UpdateRule& rule = *optim::find_rule("adamw");
    Stepper stepper(model->network(), model->trained(), rule, optim::Settings(rule.defaults));
    std::vector<double> losses = {*model->held_out_loss(text, 2, {})};
    for (int step = 0; step < steps; ++step) {
      const auto outcome = model->gradients(text, step, {});
      EXPECT_TRUE(outcome.ok()) << outcome.error().text();
      stepper.step(outcome->gradients, 3e-3, 0, 1);
      losses.push_back(outcome->loss);
    }
    losses.push_back(*model->held_out_loss(text, 2, {}));
    return losses;
  };
  const std::vector<double> losses = train(30);
  EXPECT_NEAR(losses.front(), std::log(256.0), 0.1);
  EXPECT_LT(losses.back(), losses.front() - 2);
  EXPECT_EQ(train(30), losses);
}

TEST(SmallModel, TextsAreOfTheirSize) {
  const ByteText text = grammar_text(1, 5000);
  EXPECT_GE(text.bytes.size(), 5000u);
  EXPECT_LT(text.bytes.size(), 5200u);
  EXPECT_EQ(text.bytes, grammar_text(1, 5000).bytes);
  EXPECT_NE(text.bytes, grammar_text(2, 5000).bytes);
  EXPECT_FALSE(read_byte_text("/nowhere").ok());
}

}  // namespace
}  // namespace hone::tune

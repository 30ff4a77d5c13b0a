// The elastic split on small networks: sizes, exactness of what is not perturbed, descent.
// SPDX-License-Identifier: Apache-2.0
#include "tune/elastic.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/random.h"
#include "tune/vision_data.h"

namespace hone::tune {
namespace {

constexpr std::int64_t kPoints = 24;

struct Setting {
  ThreadPool pool{2};
  VisionModel model = point_net(kPoints, kCloudClasses);
  Network network{pool};
  VisionData data = cloud_data(32, kPoints, 5);
  Setting() { EXPECT_TRUE(initialize(network, model, 3).ok()); }

  std::vector<float> all(std::int64_t first, std::int64_t last) {
    std::vector<float> values;
    for (const std::string& name : parameters_of(model, first, last)) {
      const auto part = network.values(name);
      values.insert(values.end(), part.begin(), part.end());
    }
    return values;
  }
};

TEST(Vision, LeNetHasThePapersParameters) {
  ThreadPool pool(1);
  Network network(pool);
  ASSERT_TRUE(initialize(network, lenet5(), 1).ok());
  EXPECT_EQ(network.parameters(), 107786);
}

// Backpropagation through convolution, pooling and the loss against a difference of losses along
// the gradient itself.
TEST(Vision, LeNetGradientIsASlope) {
  ThreadPool pool(2);
  Network network(pool);
  const VisionModel model = lenet5();
  ASSERT_TRUE(initialize(network, model, 1).ok());
  VisionData data{784, {}, {}};
  Random random(2);
  for (int i = 0; i < 6 * 784; ++i) data.features.push_back(random.uniform());
  for (int i = 0; i < 6; ++i) data.targets.push_back(i);
  const auto loss_after = [&](double rate) {
    EXPECT_TRUE(initialize(network, model, 1).ok());
    ElasticTrainer moves(network, model, {.cut = 0, .tail_rate = rate});
    EXPECT_TRUE(moves.step(data.features, data.targets).ok());
    ElasticTrainer reads(network, model, {.cut = 0, .tail_rate = 0});
    const auto loss = reads.step(data.features, data.targets);
    EXPECT_TRUE(loss.ok());
    return loss.ok() ? *loss : 0.0;
  };
  // Along -g the loss falls by rate |g|^2: two rates agree on |g|^2 to first order.
  const double start = loss_after(0);
  const double slow = (start - loss_after(1e-4)) / 1e-4;
  const double fast = (start - loss_after(4e-4)) / 4e-4;
  EXPECT_GT(slow, 0);
  EXPECT_NEAR(fast / slow, 1, 0.1);
  // And |g|^2 itself, from how far the parameters move.
  EXPECT_TRUE(initialize(network, model, 1).ok());
  std::vector<float> before, after;
  const auto collect = [&](std::vector<float>& to) {
    for (const std::string& name : parameters_of(model, 0, 5)) {
      const auto part = network.values(name);
      to.insert(to.end(), part.begin(), part.end());
    }
  };
  collect(before);
  ElasticTrainer moves(network, model, {.cut = 0, .tail_rate = 1});
  ASSERT_TRUE(moves.step(data.features, data.targets).ok());
  collect(after);
  double square = 0;
  for (std::size_t i = 0; i < before.size(); ++i) {
    square += (double{after[i]} - before[i]) * (double{after[i]} - before[i]);
  }
  EXPECT_NEAR(slow / square, 1, 0.1);  // f32 losses over a step of 1e-4, and curvature
}

// With both rates 0 a step of perturbing and restoring changes no bit.
TEST(Elastic, PerturbingLeavesNoTrace) {
  Setting s;
  const auto before = s.all(0, 6);
  ElasticTrainer trainer(s.network, s.model, {.cut = 5, .head_rate = 0, .tail_rate = 0});
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(trainer.step(s.data.features, s.data.targets).ok());
  EXPECT_EQ(s.all(0, 6), before);
}

// The tail's gradient at small epsilon is that of backpropagation.
TEST(Elastic, TailStepsAlongTheExactGradient) {
  Setting s;
  const auto before = s.all(4, 6);
  ElasticTrainer all(s.network, s.model, {.cut = 0, .tail_rate = 0.1});
  ASSERT_TRUE(all.step(s.data.features, s.data.targets).ok());
  const auto exact = s.all(4, 6);
  ASSERT_TRUE(initialize(s.network, s.model, 3).ok());
  ElasticTrainer split(s.network, s.model,
                       {.cut = 4, .epsilon = 1e-4, .head_rate = 0, .tail_rate = 0.1});
  ASSERT_TRUE(split.step(s.data.features, s.data.targets).ok());
  const auto found = s.all(4, 6);
  double error = 0, size = 0;
  for (std::size_t i = 0; i < exact.size(); ++i) {
    error += std::pow(double{found[i]} - exact[i], 2);
    size += std::pow(double{exact[i]} - before[i], 2);
  }
  EXPECT_GT(size, 0);
  // The mean of both sides leaves a term of epsilon^2, and kinks.
  EXPECT_LT(error, 1e-4 * size);
}

TEST(Elastic, EveryCutDescends) {
  for (const std::int64_t cut : {0, 4, 5, 6}) {
    Setting s;
    ElasticTrainer trainer(s.network, s.model,
                           {.cut = cut, .head_rate = 2e-4, .tail_rate = 0.05, .clip = 50});
    double first = 0, last = 0;
    for (int i = 0; i < 200; ++i) {
      const auto loss = trainer.step(s.data.features, s.data.targets);
      ASSERT_TRUE(loss.ok()) << loss.error().text();
      (i < 10 ? first : last) += i < 10 || i >= 190 ? *loss : 0;
    }
    EXPECT_LT(last, 0.97 * first) << "cut " << cut;
  }
}

// Memory between both ends: the tail's errors and gradients are what is added.
TEST(Elastic, MemoryGrowsWithTheTail) {
  Setting s;
  std::vector<std::int64_t> bytes;
  for (const std::int64_t cut : {6, 5, 4, 0}) {
    ElasticTrainer trainer(s.network, s.model, {.cut = cut});
    const auto memory = trainer.memory(32);
    ASSERT_TRUE(memory.ok());
    bytes.push_back(memory->in_place());
  }
  EXPECT_LE(bytes[0], bytes[1]);
  EXPECT_LE(bytes[1], bytes[2]);
  EXPECT_LT(2 * bytes[2], 3 * bytes[0]);
  EXPECT_LT(bytes[2], bytes[3]);
}

// Turned by a quarter a corner goes where it must, and nothing else is there.
TEST(VisionData, TurnsImages) {
  Images images{3, 3, {1, 0, 0, 0, 0.5F, 0, 0, 0, 0}, {4}};
  const VisionData turned = image_data(images, 10, 90);
  ASSERT_EQ(turned.features.size(), 9U);
  const std::vector<float> expected = {0, 0, 0, 0, 0.5F, 0, 1, 0, 0};
  for (std::size_t i = 0; i < 9; ++i) EXPECT_NEAR(turned.features[i], expected[i], 1e-6) << i;
}

}  // namespace
}  // namespace hone::tune

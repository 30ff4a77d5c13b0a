// Forward passes as a signal: derivatives along directions against the backward pass, what an
// estimate is on average and how far it scatters, and parameters that come back to the bit.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>

#include "../support/models.h"
#include "base/random.h"
#include "engine/adapter.h"
#include "feedback/forward_gradient.h"
#include "feedback/kept_layers.h"
#include "passes/transform/tangent.h"
#include "tune/trained.h"

namespace hone::feedback {
namespace {

using testing_models::golden_folder;
using testing_models::golden_tokens;

struct Trial {
  std::unique_ptr<engine::Session> session;
  tune::Trained trained;
  GradientOptions options;
  std::vector<Perturbed> tensors;
  TokenBatch batch;

  explicit Trial(const std::string& family, engine::Arithmetic arithmetic, int threads = 2) {
    engine::SessionOptions how;
    how.threads = threads;
    how.context = 32;
    how.compile.arithmetic = arithmetic;
    how.compile.verify = true;
    auto opened = engine::Session::open(golden_folder(family), how);
    EXPECT_TRUE(opened.ok()) << (opened.ok() ? "" : opened.error().text());
    session = *std::move(opened);
    auto prepared = tune::prepare(*session, {"lora", "all", 4, 8, 1});
    EXPECT_TRUE(prepared.ok()) << (prepared.ok() ? "" : prepared.error().text());
    trained = *std::move(prepared);
    options.compile = session->options().compile;
    options.adapt = trained.adapt;
    Random random(5);
    for (const tune::TrainedTensor& tensor : trained.tensors) {
      // B away from zero: then A matters, too.
      for (float& value : tensor.values) value += 0.05F * random.normal();
      options.trained.push_back(tensor.name);
      tensors.push_back({tensor.name, tensor.shape, tensor.values});
    }
    const auto tokens = golden_tokens(family);
    const std::vector<std::uint8_t> learn(tokens.size(), 1);
    batch.add(tokens, learn, 1.0F / static_cast<float>(tokens.size() - 1));
  }

  std::vector<std::vector<float>> gradients() const {
    Gradient gradient(*session, options);
    auto outcome = gradient.run(batch);
    EXPECT_TRUE(outcome.ok()) << (outcome.ok() ? "" : outcome.error().text());
    std::vector<std::vector<float>> out;
    for (const auto& each : outcome->gradients) out.emplace_back(each.begin(), each.end());
    return out;
  }

  std::unique_ptr<ForwardGradient> forward(const ForwardOptions& how) const {
    auto made = ForwardGradient::create(*session, options, tensors, how,
                                        std::make_shared<runtime::Workspace>());
    EXPECT_TRUE(made.ok()) << (made.ok() ? "" : made.error().text());
    return *std::move(made);
  }
};

double dot(const std::vector<std::vector<float>>& a, const std::vector<std::vector<float>>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    for (std::size_t j = 0; j < a[i].size(); ++j) sum += double{a[i][j]} * double{b[i][j]};
  }
  return sum;
}

// The direction itself, out of the expansion of one coefficient.
std::vector<std::vector<float>> direction(const ForwardGradient& forward, std::size_t tensors,
                                          std::size_t which, std::size_t count, std::int64_t step) {
  std::vector<double> one(count, 0.0);
  one[which] = 1;
  std::vector<std::vector<float>> out(tensors);
  forward.expand(std::vector<EstimateTerm>{{step, one}}, out);
  return out;
}

class ForwardOf : public testing::TestWithParam<const char*> {};

TEST_P(ForwardOf, TangentIsTheGradientTimesTheDirection) {
  const Trial trial(GetParam(), engine::Arithmetic::kFloat);
  const auto gradients = trial.gradients();
  ForwardOptions how;
  how.directions = 11;  // more than run together
  how.noise = Noise::kGaussian;
  const auto forward = trial.forward(how);
  auto estimate = forward->run(std::span(&trial.batch, 1), 3);
  ASSERT_TRUE(estimate.ok()) << estimate.error().text();
  ASSERT_EQ(estimate->derivatives.size(), 11U);
  const double size = std::sqrt(dot(gradients, gradients));
  for (std::size_t k = 0; k < 11; ++k) {
    const auto z = direction(*forward, gradients.size(), k, 11, 3);
    // Two f32 computations of one number; along a direction of that length it is about `size`.
    EXPECT_NEAR(estimate->derivatives[k], dot(gradients, z), 2e-4 * size) << k;
  }
}

TEST_P(ForwardOf, PairsComeNearTheTangentAndLeaveNoTrace) {
  const Trial trial(GetParam(), engine::Arithmetic::kFloat);
  ForwardOptions how;
  how.directions = 2;
  const auto tangents = trial.forward(how)->run(std::span(&trial.batch, 1), 0);
  std::vector<std::vector<float>> before;
  for (const Perturbed& tensor : trial.tensors) {
    before.emplace_back(tensor.values.begin(), tensor.values.end());
  }
  for (const Probe probe : {Probe::kPair, Probe::kOneSided}) {
    how.probe = probe;
    how.epsilon = 1e-3;
    const auto found = trial.forward(how)->run(std::span(&trial.batch, 1), 0);
    ASSERT_TRUE(found.ok() && tangents.ok());
    for (std::size_t k = 0; k < 2; ++k) {
      // f32 losses of about 5 differ by 1e-6 at rest, over a distance of 1e-3; one-sided probes
      // are off by half of epsilon times the curvature, too.
      const double off = probe == Probe::kPair ? 0.01 : 0.1;
      EXPECT_NEAR(found->derivatives[k], tangents->derivatives[k],
                  off * std::max(1.0, std::abs(tangents->derivatives[k])))
          << k;
    }
    for (std::size_t i = 0; i < before.size(); ++i) {
      EXPECT_TRUE(std::ranges::equal(before[i], trial.tensors[i].values)) << "a bit was left";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, ForwardOf,
                         testing::Values("llama", "gemma3", "qwen2", "qwen3", "gpt2"),
                         [](const auto& info) { return std::string(info.param); });

// Over many directions the estimate's mean is the gradient, and it scatters as theory says: each
// direction adds |g|^2 per element for Rademacher noise, so that K of them leave the mean's squared
// distance at (d - 1) |g|^2 / K (Gaussian: (d + 1) |g|^2 / K), d elements in all.
TEST(ForwardEstimate, IsTheGradientOnAverageAndScattersAsTheorySays) {
  for (const Noise noise : {Noise::kRademacher, Noise::kGaussian}) {
    const Trial trial("llama", engine::Arithmetic::kFloat);
    const auto gradients = trial.gradients();
    ForwardOptions how;
    how.noise = noise;
    how.directions = 64;
    const auto forward = trial.forward(how);
    double elements = 0;
    for (const auto& gradient : gradients) elements += static_cast<double>(gradient.size());
    const double size = dot(gradients, gradients);
    double scatter = 0;
    double along = 0;
    constexpr int kSteps = 24;
    for (int step = 0; step < kSteps; ++step) {
      auto estimate = forward->run(std::span(&trial.batch, 1), step);
      ASSERT_TRUE(estimate.ok());
      std::vector<std::vector<float>> mean(gradients.size());
      forward->expand(std::vector<EstimateTerm>{{step, estimate->coefficients}}, mean);
      along += dot(mean, gradients) / size / kSteps;
      for (std::size_t i = 0; i < mean.size(); ++i) {
        for (std::size_t j = 0; j < mean[i].size(); ++j) mean[i][j] -= gradients[i][j];
      }
      scatter += dot(mean, mean) / size / kSteps;
    }
    // The part along the gradient has mean 1 and variance about 2 / K each step: 24 steps of 64
    // directions put it within 4 sigma of 0.15.
    EXPECT_NEAR(along, 1.0, 4 * std::sqrt(2.0 / (64 * kSteps)));
    const double expected = (elements + (noise == Noise::kGaussian ? 1 : -1)) / 64;
    EXPECT_NEAR(scatter / expected, 1.0, 0.2);
  }
}

TEST(ForwardEstimate, OnlyTheLastLayersMove) {
  const Trial trial("llama", engine::Arithmetic::kFloat);
  ForwardOptions how;
  how.layers = 1;
  const auto forward = trial.forward(how);
  const std::int64_t first = forward->first_layer(0);
  ASSERT_EQ(first, trial.session->config().layers - 1);
  const auto estimate = forward->run(std::span(&trial.batch, 1), 0);
  ASSERT_TRUE(estimate.ok()) << estimate.error().text();
  const auto z = direction(*forward, trial.tensors.size(), 0, 1, 0);
  for (std::size_t i = 0; i < z.size(); ++i) {
    const bool last = trial.tensors[i].name.starts_with("blk." + std::to_string(first) + ".");
    EXPECT_EQ(std::ranges::any_of(z[i], [](float value) { return value != 0; }), last)
        << trial.tensors[i].name;
  }
  EXPECT_NEAR(estimate->derivatives[0], dot(trial.gradients(), z),
              1e-3 * std::abs(estimate->derivatives[0]) + 1e-4);
}

// With integer products: what is kept must be what one run of all layers computes.
TEST(ForwardEstimate, KeptLayersChangeNoBit) {
  for (const char* family : {"llama", "gemma3", "gpt2"}) {
    Trial trial(family, engine::Arithmetic::kInteger);
    const std::int64_t last = trial.session->config().layers - 1;
    for (Perturbed& tensor : trial.tensors) tensor.fixed = engine::layer_of(tensor.name) < last;
    const auto tokens = golden_tokens(family);
    const std::vector<std::uint8_t> learn(tokens.size(), 1);
    trial.batch.add(std::span(tokens).subspan(3), std::span(learn).subspan(3), 0.1F);
    ForwardOptions how;
    how.directions = 2;
    const auto whole = trial.forward(how);
    EXPECT_EQ(whole->kept_layers(), nullptr);
    // Room for both sequences, and for one of them alone.
    for (const std::size_t room : {2 * tokens.size(), tokens.size()}) {
      how.kept_layer_bytes =
          static_cast<std::int64_t>(room * sizeof(float)) * trial.session->config().hidden;
      for (const Probe probe : {Probe::kTangent, Probe::kPair}) {
        how.probe = probe;
        const auto kept = trial.forward(how);
        ForwardOptions plain = how;
        plain.kept_layer_bytes = 0;
        const auto without = trial.forward(plain);
        for (std::int64_t step = 0; step < 3; ++step) {
          const auto found = kept->run(std::span(&trial.batch, 1), step);
          const auto expected = without->run(std::span(&trial.batch, 1), step);
          ASSERT_TRUE(found.ok()) << found.error().text();
          ASSERT_TRUE(expected.ok());
          EXPECT_EQ(found->loss, expected->loss) << family << " " << step;
          EXPECT_EQ(found->derivatives, expected->derivatives) << family << " " << step;
        }
        ASSERT_NE(kept->kept_layers(), nullptr);
        EXPECT_LE(kept->kept_layers()->kept_bytes(), how.kept_layer_bytes);
        const std::int64_t again = room > tokens.size() ? 0 : 1;  // that no room is for
        const std::int64_t runs = probe == Probe::kPair ? 12 : 3;
        EXPECT_EQ(kept->kept_layers()->missed(), 2 + again * (runs - 1)) << family;
        EXPECT_EQ(kept->kept_layers()->found() + kept->kept_layers()->missed(), 2 * runs);
      }
    }
  }
}

// Signs that products draw are those that an estimate is made of: weights large enough for it.
TEST(ForwardEstimate, DrawnDirectionsAreTheStoredOnes) {
  Trial trial("llama", engine::Arithmetic::kFloat);
  tune::MethodOptions full;
  full.method = "full";
  full.tokens_stay = true;
  auto prepared = tune::prepare(*trial.session, full);
  ASSERT_TRUE(prepared.ok()) << prepared.error().text();
  trial.trained = *std::move(prepared);
  trial.options.adapt = nullptr;
  trial.options.trained.clear();
  trial.tensors.clear();
  for (const tune::TrainedTensor& tensor : trial.trained.tensors) {
    trial.options.trained.push_back(tensor.name);
    trial.tensors.push_back({tensor.name, tensor.shape, tensor.values});
  }
  ForwardOptions how;
  how.directions = 3;
  how.drawn_elements = 1;
  const auto drawn = trial.forward(how);
  const std::int64_t bytes = drawn->direction_bytes();
  const auto found = drawn->run(std::span(&trial.batch, 1), 4);
  ASSERT_TRUE(found.ok()) << found.error().text();
  how.drawn_elements = INT64_MAX;
  const auto stored = trial.forward(how);
  EXPECT_GT(stored->direction_bytes(), 10 * bytes);  // norms' are stored either way
  const auto expected = stored->run(std::span(&trial.batch, 1), 4);
  ASSERT_TRUE(expected.ok()) << expected.error().text();
  EXPECT_EQ(found->loss, expected->loss);
  EXPECT_EQ(found->derivatives, expected->derivatives);
  const auto gradients = trial.gradients();
  const auto z = direction(*drawn, gradients.size(), 1, 3, 4);
  EXPECT_NEAR(found->derivatives[1], dot(gradients, z),
              1e-3 * std::sqrt(dot(gradients, gradients)));
  // The parts of a direction are the parts of the whole.
  std::vector<float> part(kDirectionGranule, 0.0F);
  const std::vector<double> one{0, 1, 0};
  const auto large = static_cast<std::size_t>(
      std::ranges::max_element(z, {}, [](const auto& each) { return each.size(); }) - z.begin());
  drawn->expand(std::vector<EstimateTerm>{{4, one}}, large, kDirectionGranule, part);
  EXPECT_TRUE(
      std::ranges::equal(part, std::span(z[large]).subspan(kDirectionGranule, part.size())));
}

TEST(ForwardEstimate, SameBitsForAnyNumberOfThreads) {
  std::vector<double> first;
  for (const int threads : {1, 2, 3}) {
    const Trial trial("gemma3", engine::Arithmetic::kInteger, threads);
    ForwardOptions how;
    how.directions = 3;
    const auto estimate = trial.forward(how)->run(std::span(&trial.batch, 1), 1);
    ASSERT_TRUE(estimate.ok());
    if (first.empty()) first = estimate->derivatives;
    EXPECT_EQ(estimate->derivatives, first) << threads;
  }
}

}  // namespace
}  // namespace hone::feedback

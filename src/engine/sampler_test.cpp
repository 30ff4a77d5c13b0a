// Sampling against distributions computed directly, and the promises on ties, seeds and streams.
// SPDX-License-Identifier: Apache-2.0
#include "engine/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

namespace hone::engine {
namespace {

SamplingOptions plain() {
  SamplingOptions options;
  options.temperature = 1;
  options.top_k = 0;
  options.top_p = 1;
  options.min_p = 0;
  return options;
}

std::vector<float> random_logits(std::size_t count, std::uint64_t seed, float spread) {
  Random random(seed);
  std::vector<float> logits(count);
  for (float& logit : logits) logit = random.normal() * spread;
  return logits;
}

// The distribution that the options mean, straight from their definitions: sort, cut to k, cut to
// the smallest set of probability p, cut below min_p of the best, temper.
std::map<TokenId, double> direct(std::vector<float> logits, const SamplingOptions& options,
                                 std::span<const TokenId> recent = {}) {
  std::vector<TokenId> last(
      recent.end() - std::min<std::ptrdiff_t>(options.repetition_window, std::ssize(recent)),
      recent.end());
  std::sort(last.begin(), last.end());
  last.erase(std::unique(last.begin(), last.end()), last.end());
  for (const TokenId id : last) {
    float& logit = logits[static_cast<std::size_t>(id)];
    logit = logit > 0 ? logit / options.repetition_penalty : logit * options.repetition_penalty;
  }
  std::vector<TokenId> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](TokenId a, TokenId b) {
    return logits[static_cast<std::size_t>(a)] > logits[static_cast<std::size_t>(b)];
  });
  if (options.top_k > 0 && order.size() > static_cast<std::size_t>(options.top_k)) {
    order.resize(static_cast<std::size_t>(options.top_k));
  }
  const auto logit = [&](TokenId id) { return double{logits[static_cast<std::size_t>(id)]}; };
  const auto probabilities = [&](double temperature) {
    std::vector<double> out;
    double sum = 0;
    for (const TokenId id : order)
      out.push_back(std::exp((logit(id) - logit(order[0])) / temperature));
    for (const double value : out) sum += value;
    for (double& value : out) value /= sum;
    return out;
  };
  if (options.top_p < 1) {
    const auto p = probabilities(1);
    double sum = 0;
    std::size_t keep = 0;
    while (keep < p.size() && sum < double{options.top_p}) sum += p[keep++];
    order.resize(keep);
  }
  if (options.min_p > 0) {
    const auto p = probabilities(1);
    std::size_t keep = 1;
    while (keep < p.size() && p[keep] >= double{options.min_p} * p[0]) ++keep;
    order.resize(keep);
  }
  const auto p = probabilities(options.temperature);
  std::map<TokenId, double> out;
  for (std::size_t i = 0; i < order.size(); ++i) out[order[i]] = p[i];
  return out;
}

// Pearson's chi-square of 20,000 draws; bins of fewer than 5 expected draws go together. Mean and
// variance of the statistic are its degrees of freedom and twice them: the bound is six standard
// deviations above, once in a thousand million runs if the sampler is right (and the seed is
// fixed).
void expect_distribution(const std::vector<float>& logits, const SamplingOptions& options,
                         std::span<const TokenId> recent = {}) {
  const auto expected = direct(logits, options, recent);
  Sampler sampler(options);
  constexpr int kDraws = 20000;
  std::map<TokenId, int> counts;
  for (int i = 0; i < kDraws; ++i) ++counts[sampler.sample(logits, recent)];
  for (const auto& [token, count] : counts) {
    EXPECT_TRUE(expected.contains(token)) << "token " << token << " was cut, yet drawn";
  }
  double statistic = 0, rest_expected = 0, rest_found = 0;
  int bins = 0;
  for (const auto& [token, probability] : expected) {
    const double mean = probability * kDraws;
    if (mean < 5) {
      rest_expected += mean;
      rest_found += counts[token];
      continue;
    }
    statistic += (counts[token] - mean) * (counts[token] - mean) / mean;
    ++bins;
  }
  if (rest_expected >= 5) {
    statistic += (rest_found - rest_expected) * (rest_found - rest_expected) / rest_expected;
    ++bins;
  }
  const double freedom = std::max(1, bins - 1);
  EXPECT_LE(statistic, freedom + 6 * std::sqrt(2 * freedom));
}

TEST(Sampler, DrawsTheDistribution) {
  const auto logits = random_logits(200, 1, 2.0f);
  SamplingOptions options = plain();
  {
    SCOPED_TRACE("plain");
    expect_distribution(logits, options);
  }
  for (const float temperature : {0.3f, 0.8f, 2.5f}) {
    SCOPED_TRACE(temperature);
    options = plain();
    options.temperature = temperature;
    expect_distribution(logits, options);
  }
  for (const int k : {1, 2, 40, 199, 200, 1000}) {
    SCOPED_TRACE(k);
    options = plain();
    options.top_k = k;
    expect_distribution(logits, options);
  }
  for (const float p : {0.01f, 0.5f, 0.9f, 0.999f}) {
    SCOPED_TRACE(p);
    options = plain();
    options.top_p = p;
    expect_distribution(logits, options);
    options = plain();
    options.min_p = p;
    expect_distribution(logits, options);
  }
  SCOPED_TRACE("the defaults");
  expect_distribution(logits, SamplingOptions{});
}

TEST(Sampler, PenalizesWhatTheWindowHolds) {
  const auto logits = random_logits(50, 2, 1.5f);
  SamplingOptions options = plain();
  options.repetition_penalty = 1.8f;
  options.repetition_window = 4;
  // 7 is out of the window, 3 comes twice and counts once.
  const std::vector<TokenId> recent = {7, 7, 3, 9, 3, 11};
  expect_distribution(logits, options, recent);
  options.repetition_window = 0;
  expect_distribution(logits, options, recent);
  options.temperature = 0;
  options.repetition_window = 4;
  std::vector<float> two = {2.0f, 1.9f, -5.0f};
  const std::vector<TokenId> first = {0};
  EXPECT_EQ(Sampler(options).sample(two, first), 1);
  EXPECT_EQ(Sampler(options).sample(two, {}), 0);
  two = {-1.0f, -1.1f, -9.0f};  // below zero the penalty multiplies
  EXPECT_EQ(Sampler(options).sample(two, first), 1);
}

TEST(Sampler, GreedyTakesTheFirstOfTheBest) {
  SamplingOptions options;
  options.temperature = 0;
  for (std::size_t size : {1u, 15u, 16u, 17u, 100u, 1000u}) {
    for (std::size_t at = 0; at < size; at += 1 + size / 9) {
      std::vector<float> logits(size, -1.0f);
      for (std::size_t i = at; i < size; i += 3) logits[i] = 4.0f;
      EXPECT_EQ(Sampler(options).sample(logits, {}), static_cast<TokenId>(at)) << size;
      options.repetition_penalty = 1.1f;
      EXPECT_EQ(Sampler(options).sample(logits, {}), static_cast<TokenId>(at)) << size;
      options.repetition_penalty = 1.0f;
    }
  }
}

TEST(Sampler, TiesGoToTheSmallerId) {
  SamplingOptions options = plain();
  options.top_k = 3;
  const std::vector<float> logits(64, 1.0f);  // all equal: the first three stay
  Sampler sampler(options);
  std::map<TokenId, int> counts;
  for (int i = 0; i < 300; ++i) ++counts[sampler.sample(logits, {})];
  EXPECT_EQ(counts.size(), 3u);
  EXPECT_EQ(counts.rbegin()->first, 2);
}

TEST(Sampler, SeedAndStreamDecideEverything) {
  const auto logits = random_logits(500, 3, 1.0f);
  const auto draws = [&](std::uint64_t seed, std::uint64_t stream) {
    SamplingOptions options = plain();
    options.seed = seed;
    Sampler sampler(options, stream);
    std::vector<TokenId> out;
    for (int i = 0; i < 50; ++i) out.push_back(sampler.sample(logits, {}));
    return out;
  };
  EXPECT_EQ(draws(1, 0), draws(1, 0));
  EXPECT_NE(draws(1, 0), draws(2, 0));
  EXPECT_NE(draws(1, 0), draws(1, 1));
}

TEST(Sampler, OddLogitsAreSurvived) {
  const float infinity = std::numeric_limits<float>::infinity();
  const std::vector<float> masked = {-infinity, 1.0f, -infinity, 1.5f};
  Sampler sampler{SamplingOptions{}};
  for (int i = 0; i < 50; ++i) {
    const TokenId token = sampler.sample(masked, {});
    EXPECT_TRUE(token == 1 || token == 3) << token;
  }
  const std::vector<float> nan(5, std::numeric_limits<float>::quiet_NaN());
  const TokenId token = sampler.sample(nan, {});
  EXPECT_TRUE(token >= 0 && token < 5);
  const std::vector<float> one = {3.0f};
  EXPECT_EQ(sampler.sample(one, {}), 0);
}

TEST(SamplingOptions, AreChecked) {
  EXPECT_TRUE(check(SamplingOptions{}).ok());
  const auto refused = [](auto change) {
    SamplingOptions options;
    change(options);
    const Status status = check(options);
    return !status.ok() && status.error().code == ErrorCode::kInvalidArgument &&
           !status.error().expected.empty() && !status.error().found.empty();
  };
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const float bad : {-0.1f, nan, std::numeric_limits<float>::infinity()}) {
    EXPECT_TRUE(refused([&](auto& o) { o.temperature = bad; })) << bad;
    EXPECT_TRUE(refused([&](auto& o) { o.top_p = bad; })) << bad;
    EXPECT_TRUE(refused([&](auto& o) { o.min_p = bad; })) << bad;
    EXPECT_TRUE(refused([&](auto& o) { o.repetition_penalty = bad; })) << bad;
  }
  EXPECT_TRUE(refused([](auto& o) { o.top_k = -1; }));
  EXPECT_TRUE(refused([](auto& o) { o.top_p = 0; }));
  EXPECT_TRUE(refused([](auto& o) { o.min_p = 1; }));
  EXPECT_TRUE(refused([](auto& o) { o.repetition_penalty = 0; }));
}

TEST(LogProbability, IsLogSoftmax) {
  const auto logits = random_logits(1000, 4, 3.0f);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(double{logit});
  for (const TokenId token : {0, 17, 999}) {
    EXPECT_NEAR(log_probability(logits, token),
                double{logits[static_cast<std::size_t>(token)]} - std::log(sum), 1e-5);
  }
}

}  // namespace
}  // namespace hone::engine

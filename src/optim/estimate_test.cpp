// Coefficients of directions: what each shaping promises.
// SPDX-License-Identifier: Apache-2.0
#include "optim/estimate.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/random.h"

namespace hone::optim {
namespace {

TEST(Coefficients, OfMeanSpreadAndRank) {
  const std::vector<double> derivatives{2.0, -1.0, 5.0, -1.0};
  const auto mean = coefficients_of(derivatives, Shaping::kMean);
  ASSERT_TRUE(mean.ok());
  EXPECT_EQ(*mean, (std::vector<double>{0.5, -0.25, 1.25, -0.25}));
  const auto spread = coefficients_of(derivatives, Shaping::kSpread);
  const double deviation = std::sqrt((0.75 * 0.75 + 2.25 * 2.25 * 2 + 3.75 * 3.75) / 4);
  EXPECT_NEAR((*spread)[2], 5.0 / (4 * deviation), 1e-12);
  const auto rank = coefficients_of(derivatives, Shaping::kRank);
  // Ranks 2, 0.5, 3, 0.5 of 0 … 3, centred, over four directions.
  EXPECT_NEAR((*rank)[0], (2.0 / 3 - 0.5) / 4, 1e-12);
  EXPECT_NEAR((*rank)[1], (0.5 / 3 - 0.5) / 4, 1e-12);
  EXPECT_EQ((*rank)[1], (*rank)[3]);
}

TEST(Coefficients, OfRanksDoNotChangeWithMonotoneTransforms) {
  Random random(3);
  std::vector<double> values(9), bent(9);
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = random.normal();
    bent[i] = std::exp(3 * values[i]) + 7;
  }
  EXPECT_EQ(*coefficients_of(values, Shaping::kRank), *coefficients_of(bent, Shaping::kRank));
}

TEST(Coefficients, RefuseWhatIsNotFinite) {
  for (const double wrong : {std::nan(""), std::numeric_limits<double>::infinity()}) {
    const std::vector<double> values{1.0, wrong};
    for (const Shaping shaping : {Shaping::kMean, Shaping::kSpread, Shaping::kRank}) {
      EXPECT_FALSE(coefficients_of(values, shaping).ok());
    }
  }
}

TEST(Coefficients, OfEqualLossesAreNothing) {
  const std::vector<double> same{0.25, 0.25, 0.25};
  for (const Shaping shaping : {Shaping::kSpread, Shaping::kRank}) {
    const auto found = coefficients_of(same, shaping);
    ASSERT_TRUE(found.ok());
    for (const double c : *found) EXPECT_EQ(c, 0.0);
  }
}

TEST(Clipping, CutsAndCounts) {
  std::vector<double> values{-300.0, 50.0, 101.0};
  EXPECT_EQ(clip_derivatives(values, 100), 2);
  EXPECT_EQ(values, (std::vector<double>{-100.0, 50.0, 100.0}));
  EXPECT_EQ(clip_derivatives(values, 0), 0);
}

// By hand: the mean over edges (better, worse) of y_worse - y_better, as coefficients of y.
TEST(Ranking, CountsEveryEdgeOnce) {
  constexpr std::int64_t kCandidates = 6;
  const std::vector<std::int64_t> order{4, 1, 3};
  std::vector<double> expected(kCandidates, 0.0);
  double edges = 0;
  for (std::size_t better = 0; better < order.size(); ++better) {
    for (std::int64_t worse = 0; worse < kCandidates; ++worse) {
      const auto place = std::ranges::find(order, worse);
      if (place - order.begin() <= static_cast<std::ptrdiff_t>(better)) continue;
      expected[static_cast<std::size_t>(order[better])] -= 1;
      expected[static_cast<std::size_t>(worse)] += 1;
      edges += 1;
    }
  }
  const auto found = coefficients_of_ranking(order, kCandidates);
  ASSERT_TRUE(found.ok()) << found.error().text();
  for (std::size_t i = 0; i < expected.size(); ++i) {
    EXPECT_NEAR((*found)[i], expected[i] / edges, 1e-12) << i;
  }
  // They add up to nothing: moving all candidates alike says nothing.
  EXPECT_NEAR(std::accumulate(found->begin(), found->end(), 0.0), 0.0, 1e-12);
}

TEST(Ranking, RefusesWhatIsNone) {
  for (const std::vector<std::int64_t>& wrong :
       {std::vector<std::int64_t>{}, {0, 0}, {3}, {-1, 0}}) {
    EXPECT_FALSE(coefficients_of_ranking(wrong, 3).ok());
  }
  EXPECT_FALSE(coefficients_of_ranking(std::vector<std::int64_t>{0}, 1).ok());
}

// Downhill on a quadratic, whichever way losses become coefficients: a sign error would climb.
TEST(Descent, OnAQuadratic) {
  constexpr std::size_t kSize = 20;
  constexpr std::size_t kDirections = 8;
  for (const Shaping shaping : {Shaping::kMean, Shaping::kSpread, Shaping::kRank}) {
    Random random(7);
    std::vector<double> x(kSize, 1.0);
    const auto loss = [](const std::vector<double>& at) {
      return std::inner_product(at.begin(), at.end(), at.begin(), 0.0) / 2;
    };
    const double before = loss(x);
    for (int step = 0; step < 300; ++step) {
      std::vector<std::vector<double>> z(kDirections, std::vector<double>(kSize));
      std::vector<double> derivatives;
      for (auto& direction : z) {
        std::vector<double> ahead = x, behind = x;
        for (std::size_t i = 0; i < kSize; ++i) {
          direction[i] = random.normal();
          ahead[i] += 1e-3 * direction[i];
          behind[i] -= 1e-3 * direction[i];
        }
        derivatives.push_back((loss(ahead) - loss(behind)) / 2e-3);
      }
      const auto coefficients = coefficients_of(derivatives, shaping);
      ASSERT_TRUE(coefficients.ok());
      for (std::size_t k = 0; k < kDirections; ++k) {
        for (std::size_t i = 0; i < kSize; ++i) x[i] -= 0.05 * (*coefficients)[k] * z[k][i];
      }
    }
    EXPECT_LT(loss(x), 0.2 * before) << static_cast<int>(shaping);
  }
}

}  // namespace
}  // namespace hone::optim

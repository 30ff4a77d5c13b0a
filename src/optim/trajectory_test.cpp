// Directions without movement: found, taken out, forgotten.
// SPDX-License-Identifier: Apache-2.0
#include "optim/trajectory.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/random.h"

namespace hone::optim {
namespace {

constexpr std::size_t kSize = 40;
constexpr std::int64_t kPeriod = 16;

// Points that follow two patterns, with a little noise of a third and fourth.
std::vector<float> point(Random& random, float noise) {
  std::vector<float> at(kSize);
  const float parts[] = {random.normal(), random.normal(), noise * random.normal(),
                         noise * random.normal()};
  for (std::size_t j = 0; j < kSize; ++j) {
    for (std::size_t k = 0; k < 4; ++k) {
      at[j] += parts[k] * std::cos(static_cast<float>((k + 1) * (j + 1)) * 0.7F);
    }
  }
  return at;
}

double length(const std::vector<float>& x) {
  double sum = 0;
  for (const float value : x) sum += double{value} * double{value};
  return std::sqrt(sum);
}

TEST(Trajectory, TakesOutWhereNothingMoves) {
  Trajectory trajectory(kPeriod);
  Random random(3);
  std::vector<float> gradient(kSize);
  for (float& value : gradient) value = random.normal();
  const std::vector<float> before = gradient;
  for (std::int64_t i = 0; i + 1 < kPeriod; ++i) trajectory.add(point(random, 1e-3F));
  trajectory.project(gradient);
  EXPECT_EQ(gradient, before) << "nothing is known yet";
  trajectory.add(point(random, 1e-3F));
  EXPECT_EQ(trajectory.removed(), 2) << "the two noises";
  trajectory.project(gradient);
  EXPECT_LT(length(gradient), length(before));
  // A projection: once more changes nothing but rounding, and what left is orthogonal to the rest.
  std::vector<float> twice = gradient, gone = before;
  trajectory.project(twice);
  double along = 0;
  for (std::size_t j = 0; j < kSize; ++j) {
    EXPECT_NEAR(twice[j], gradient[j], 1e-6);
    gone[j] -= gradient[j];
    along += double{gone[j]} * double{gradient[j]};
  }
  EXPECT_NEAR(along, 0, 1e-5);
}

TEST(Trajectory, PointsThatNeverWereLeaveNoTrace) {
  Trajectory one(kPeriod), other(kPeriod);
  Random random(4), stranger(5);
  for (std::int64_t i = 0; i < 2 * kPeriod; ++i) {
    const auto at = point(random, 1e-2F);
    one.add(at);
    other.add(point(stranger, 1));
    other.forget_last();
    other.add(at);
  }
  std::vector<float> a(kSize, 1.0F), b(kSize, 1.0F);
  one.project(a);
  other.project(b);
  EXPECT_EQ(a, b);
  EXPECT_GT(one.removed(), 0);
}

TEST(Trajectory, ParametersThatStayRemoveNothing) {
  Trajectory trajectory(kPeriod);
  const std::vector<float> still(kSize, 0.5F);
  for (std::int64_t i = 0; i < kPeriod; ++i) trajectory.add(still);
  EXPECT_EQ(trajectory.removed(), 0);
}

}  // namespace
}  // namespace hone::optim

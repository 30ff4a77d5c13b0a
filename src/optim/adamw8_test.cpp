// AdamW with 8-bit state beside AdamW: on noisy quadratics with curvatures over several powers of
// ten both must come equally far.
// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "optim/battery.h"
#include "optim/schedule.h"

namespace hone::optim {
namespace {

constexpr std::size_t kSize = 4096;
constexpr std::int64_t kSteps = 1500;

struct Outcome {
  double loss = 0.0;  // a_i / 2 (w_i - c_i)^2, relative to the start, mean over elements
  std::vector<float> weights;
};

// Gradients are a_i (w_i - c_i + 0.5 noise): the noise has each element's own size, as it has in
// training, so that v spans twice the decades of the curvature a.
Outcome descend(const Variant& variant, float decades) {
  Stepped tensor(variant, {8, kSize / 8}, random_values(kSize, 21));
  const std::vector<float> start = tensor.weights, target = random_values(kSize, 22);
  std::vector<float> curvature(kSize), gradient(kSize);
  Random random(23);
  for (float& a : curvature) a = std::pow(10.0f, -decades * random.uniform());
  Schedule schedule{.kind = ScheduleKind::kCosine, .learning_rate = 0.01, .steps = kSteps};
  for (std::int64_t step = 1; step <= kSteps; ++step) {
    for (std::size_t i = 0; i < kSize; ++i) {
      gradient[i] = curvature[i] * (tensor.weights[i] - target[i] + 0.5f * random.normal());
    }
    tensor.step(gradient, scheduled(schedule, step));
  }
  double loss = 0.0;
  for (std::size_t i = 0; i < kSize; ++i) {
    const double distance = tensor.weights[i] - target[i];
    const double before = start[i] - target[i];
    loss += distance * distance / (before * before + 1.0);
  }
  return {loss / kSize, tensor.weights};
}

// Up to three powers of ten of gradient within a block (six of v, which is what the codes of v
// span) the state's rounding must cost less than a tenth of the noise floor that AdamW ends on.
TEST(AdamW8, ComesAsFarAsAdamW) {
  for (const float decades : {1.0f, 2.0f, 3.0f}) {
    const Outcome full = descend({find_rule("adamw"), ""}, decades);
    const Outcome eight = descend({find_rule("adamw8"), ""}, decades);
    EXPECT_LT(eight.loss, 1.1 * full.loss) << decades;
    // The two end nearer to each other than AdamW ends to the minimum.
    double apart = 0.0;
    for (std::size_t i = 0; i < kSize; ++i) {
      apart += std::pow(eight.weights[i] - full.weights[i], 2.0);
    }
    EXPECT_LT(std::sqrt(apart / kSize), std::sqrt(full.loss)) << decades;
  }
}

// Why these are the defaults: the other map and the other rounding do worse where it matters.
TEST(AdamW8, DynamicMapAndStochasticRoundingAreBetter) {
  const double best = descend({find_rule("adamw8"), ""}, 3.0f).loss;
  EXPECT_LT(best, descend({find_rule("adamw8"), "rounding=nearest"}, 3.0f).loss);
  EXPECT_LT(2.0 * best, descend({find_rule("adamw8"), "map=linear"}, 3.0f).loss);
}

}  // namespace
}  // namespace hone::optim

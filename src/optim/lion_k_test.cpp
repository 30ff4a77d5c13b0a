// Lion-K: the box and its envelope, limits of the family, and what each kappa solves.
// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <functional>

#include "optim/battery.h"
#include "optim/measure.h"
#include "optim/schedule.h"

namespace hone::optim {
namespace {

constexpr double kRate = 0.01;
constexpr double kDecay = 0.5;

// Chen et al. 2024, theorem 3.1: from |x| = 10 / d with a gradient that always pushes outwards the
// largest weight follows the envelope; with any other it stays below.
TEST(LionK, TheBoxIsEnteredAlongTheEnvelope) {
  for (const char* name : {"lion", "lion_k"}) {
    for (const bool outwards : {true, false}) {
      std::vector<float> start = random_values(400, 31);
      for (float& x : start) x = std::copysign(static_cast<float>(10.0 / kDecay), x);
      Stepped tensor({find_rule(name), ""}, {20, 20}, start);
      tensor.weight_decay = kDecay;
      for (std::int64_t step = 1; step <= 2500; ++step) {
        std::vector<float> gradient = random_values(400, 1000 + static_cast<std::uint64_t>(step));
        if (outwards) {
          for (std::size_t i = 0; i < 400; ++i) gradient[i] = -std::copysign(1.0f, start[i]);
        }
        tensor.step(gradient, kRate);
        const Box box = box_of(tensor.weights, kDecay);
        const double envelope = box_envelope(10.0 / kDecay, kRate, kDecay, step);
        ASSERT_LE(box.largest, 1.001 * envelope) << name << ", step " << step;
        if (outwards) {
          ASSERT_GE(box.largest, 0.99 * envelope) << name << ", step " << step;
        }
      }
      // Inside, and it stays inside: max|x| <= 1 / d + rate.
      const Box box = box_of(tensor.weights, kDecay);
      EXPECT_LE(box.largest, 1.0 / kDecay + kRate);
      EXPECT_EQ(box.at_border, outwards ? 1.0 : 0.0);
    }
  }
}

TEST(LionK, WithoutDecayThereIsNoBox) {
  Stepped tensor({find_rule("lion_k"), ""}, {1, 64}, std::vector<float>(64, 0.0f));
  const std::vector<float> gradient(64, -1.0f);
  for (int step = 0; step < 1000; ++step) tensor.step(gradient, kRate);
  EXPECT_NEAR(box_of(tensor.weights, 0.0).largest, box_envelope(0.0, kRate, 0.0, 1000), 1e-3);
}

TEST(LionK, L1IsLionToTheBit) {
  for (const Shape2 shape : odd_shapes(*find_rule("lion"))) {
    const auto size = static_cast<std::size_t>(shape.elements());
    Stepped lion({find_rule("lion"), ""}, shape, random_values(size, 1));
    Stepped lion_k({find_rule("lion_k"), "kappa=l1"}, shape, random_values(size, 1));
    lion.weight_decay = lion_k.weight_decay = 0.1;
    for (std::uint64_t step = 1; step <= 20; ++step) {
      lion.step(random_values(size, step), kRate);
      lion_k.step(random_values(size, step), kRate);
    }
    EXPECT_TRUE(lion.same_as(lion_k));
  }
}

// Huber and sqrt bend within e of 0; with e far below every |u| they are the sign. lp with p = 1
// is l1, with p = 2 is l2; a group of all elements is l2.
TEST(LionK, LimitsOfTheFamilyMeet) {
  struct Pair {
    const char* limit;
    const char* of;
    float tolerance;
  };
  const float rounding = 20 * 0.01f * 0x1p-22f;  // of a step's size, 20 steps
  for (const Pair& pair :
       {Pair{"kappa=huber,e=1e-30", "kappa=l1", 0.0f}, Pair{"kappa=huber,e=0", "kappa=l1", 0.0f},
        Pair{"kappa=truncated-l1,e=0", "kappa=l1", 0.0f},
        Pair{"kappa=sqrt,e=1e-30", "kappa=l1", 0.0f}, Pair{"kappa=lp,p=1", "kappa=l1", 0.0f},
        Pair{"kappa=lp,p=2", "kappa=l2", rounding},
        Pair{"kappa=group,group=600", "kappa=l2", 0.0f}}) {
    Stepped limit({find_rule("lion_k"), pair.limit}, {20, 30}, random_values(600, 1));
    Stepped of({find_rule("lion_k"), pair.of}, {20, 30}, random_values(600, 1));
    for (std::uint64_t step = 1; step <= 20; ++step) {
      limit.step(random_values(600, step), kRate);
      of.step(random_values(600, step), kRate);
    }
    for (std::size_t i = 0; i < 600; ++i) {
      // The weights round, too: half a unit of |w| < 8.
      const float allowed = pair.tolerance == 0.0f ? 0.0f : pair.tolerance + 20 * 0x1p-22f;
      ASSERT_NEAR(limit.weights[i], of.weights[i], allowed) << pair.limit << " and " << pair.of;
    }
  }
}

// f = |x - c|^2 / 2 from 0, with a falling rate: where it comes to rest.
std::vector<float> resting_point(const char* change, const std::vector<float>& target,
                                 Shape2 shape) {
  Stepped tensor({find_rule("lion_k"), change}, shape, std::vector<float>(target.size(), 0.0f));
  tensor.weight_decay = kDecay;
  Schedule schedule{.kind = ScheduleKind::kCosine, .learning_rate = 0.02, .steps = 6000};
  std::vector<float> gradient(target.size());
  for (std::int64_t step = 1; step <= schedule.steps; ++step) {
    for (std::size_t i = 0; i < target.size(); ++i) gradient[i] = tensor.weights[i] - target[i];
    tensor.step(gradient, scheduled(schedule, step));
  }
  return tensor.weights;
}

// The element-wise members: min over x of (x - c)^2 / 2 + penalty, |x| <= 1 / d, for each element,
// found by trying a fine grid.
TEST(LionK, ElementWiseMembersSolveWhatTheHeadOfTheFileSays) {
  const double border = 1.0 / kDecay;
  struct Member {
    const char* change;
    std::function<double(double)> penalty;
  };
  const double e = 0.4;
  const Member members[] = {
      {"kappa=l1", [](double) { return 0.0; }},
      {"kappa=huber,e=0.4", [e](double x) { return kDecay * e / 2.0 * x * x; }},
      {"kappa=sqrt,e=0.4",
       [e](double x) { return -e / kDecay * std::sqrt(1.0 - kDecay * kDecay * x * x); }},
      {"kappa=truncated-l1,e=0.4", [e](double x) { return e * std::abs(x); }},
  };
  const std::vector<float> target = {-5.0f, -1.7f, -0.2f, 0.0f, 0.3f, 0.9f, 1.9f, 4.0f};
  for (const Member& member : members) {
    const std::vector<float> rest = resting_point(member.change, target, {1, 8});
    for (std::size_t i = 0; i < target.size(); ++i) {
      double best = 0.0, best_value = HUGE_VAL;
      for (double x = -border; x <= border; x += 1e-4) {
        const double value = 0.5 * (x - target[i]) * (x - target[i]) + member.penalty(x);
        if (value < best_value) {
          best_value = value;
          best = x;
        }
      }
      EXPECT_NEAR(rest[i], best, 5e-3) << member.change << ", target " << target[i];
    }
  }
}

// The norms: the minimum of |x - c|^2 / 2 within a ball is, for l2, c scaled to its border.
TEST(LionK, NormMembersStayInTheirBalls) {
  std::vector<float> target = random_values(60, 41);
  for (float& c : target) c *= 20.0f;
  const Shape2 shape{6, 10};
  const auto norm = [](std::span<const float> x, double q) {
    double sum = 0.0;
    for (const float value : x) sum += std::pow(std::abs(static_cast<double>(value)), q);
    return std::pow(sum, 1.0 / q);
  };
  {
    const std::vector<float> x = resting_point("kappa=l2,size=plain", target, shape);
    EXPECT_NEAR(norm(x, 2.0), 1.0 / kDecay, 1e-2);
    const double length = norm(target, 2.0);
    for (std::size_t i = 0; i < x.size(); ++i) {
      EXPECT_NEAR(x[i], target[i] / length / kDecay, 1e-2) << i;
    }
  }
  {
    const std::vector<float> x = resting_point("kappa=l2", target, shape);
    EXPECT_NEAR(norm(x, 2.0) / std::sqrt(60.0), 1.0 / kDecay, 1e-2);
  }
  {
    const std::vector<float> x = resting_point("kappa=lp,p=1.5,size=plain", target, shape);
    EXPECT_NEAR(norm(x, 3.0), 1.0 / kDecay, 1e-2);
  }
  {
    const std::vector<float> x = resting_point("kappa=group,size=plain", target, shape);
    for (std::size_t row = 0; row < 6; ++row) {
      EXPECT_NEAR(norm(std::span(x).subspan(row * 10, 10), 2.0), 1.0 / kDecay, 1e-2) << row;
    }
  }
}

}  // namespace
}  // namespace hone::optim

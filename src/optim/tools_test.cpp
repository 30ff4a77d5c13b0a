// Schedules, clipping, parameter groups, and the step up and back of SAM and SAMO.
// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "optim/battery.h"
#include "optim/clip.h"
#include "optim/groups.h"
#include "optim/sam.h"
#include "optim/schedule.h"
#include "optim/sums.h"

namespace hone::optim {
namespace {

Schedule schedule_of(ScheduleKind kind) {
  return {.kind = kind,
          .learning_rate = 2.0,
          .steps = 110,
          .warmup_steps = 10,
          .decay_steps = 20,
          .final_part = 0.1};
}

TEST(ScheduleOfRates, WarmsUpAndEndsWhereItSays) {
  for (const ScheduleKind kind : {ScheduleKind::kConstant, ScheduleKind::kLinear,
                                  ScheduleKind::kCosine, ScheduleKind::kWarmupStableDecay}) {
    const Schedule schedule = schedule_of(kind);
    ASSERT_TRUE(check_schedule(schedule).ok());
    EXPECT_DOUBLE_EQ(scheduled(schedule, 1), 0.2);
    EXPECT_DOUBLE_EQ(scheduled(schedule, 5), 1.0);
    EXPECT_DOUBLE_EQ(scheduled(schedule, 10), 2.0);
    EXPECT_DOUBLE_EQ(scheduled(schedule, 11), 2.0);
    for (std::int64_t step = 11; step < 200; ++step) {
      EXPECT_LE(scheduled(schedule, step + 1), scheduled(schedule, step));
    }
    const double end = kind == ScheduleKind::kConstant ? 2.0 : 0.2;
    EXPECT_DOUBLE_EQ(scheduled(schedule, 111), end);
    EXPECT_DOUBLE_EQ(scheduled(schedule, 1000), end);
    EXPECT_EQ(*schedule_named(schedule_name(kind)), kind);
  }
}

TEST(ScheduleOfRates, HasTheFormsOfItsNames) {
  EXPECT_DOUBLE_EQ(scheduled(schedule_of(ScheduleKind::kLinear), 61), 0.2 + 1.8 * 0.5);
  EXPECT_DOUBLE_EQ(scheduled(schedule_of(ScheduleKind::kLinear), 36), 0.2 + 1.8 * 0.75);
  EXPECT_NEAR(scheduled(schedule_of(ScheduleKind::kCosine), 61), 0.2 + 1.8 * 0.5, 1e-12);
  EXPECT_NEAR(scheduled(schedule_of(ScheduleKind::kCosine), 36),
              0.2 + 1.8 * 0.5 * (1.0 + std::sqrt(0.5)), 1e-12);
  const Schedule stable = schedule_of(ScheduleKind::kWarmupStableDecay);
  EXPECT_DOUBLE_EQ(scheduled(stable, 91), 2.0);
  EXPECT_DOUBLE_EQ(scheduled(stable, 101), 0.2 + 1.8 * 0.5);
  Schedule tenth = stable;
  tenth.decay_steps = 0;  // 11 of 110
  EXPECT_DOUBLE_EQ(scheduled(tenth, 100), 2.0);
  EXPECT_LT(scheduled(tenth, 101), 2.0);
}

TEST(ScheduleOfRates, RefusesWhatDoesNotFit) {
  EXPECT_FALSE(schedule_named("cosin").ok());
  EXPECT_NE(schedule_named("cosin").error().text().find("did you mean 'cosine'"),
            std::string::npos);
  Schedule schedule = schedule_of(ScheduleKind::kLinear);
  schedule.warmup_steps = 111;
  EXPECT_FALSE(check_schedule(schedule).ok());
  schedule = schedule_of(ScheduleKind::kLinear);
  schedule.learning_rate = std::nan("");
  EXPECT_FALSE(check_schedule(schedule).ok());
  schedule = schedule_of(ScheduleKind::kLinear);
  schedule.final_part = 1.5;
  EXPECT_FALSE(check_schedule(schedule).ok());
}

TEST(Clip, TheNormIsThatOfAllTensors) {
  const std::vector<float> a = {3.0f, 0.0f}, b = {0.0f, 4.0f, 12.0f};
  const std::span<const float> tensors[] = {a, b};
  EXPECT_DOUBLE_EQ(global_norm(tensors), 13.0);
  const double squares[] = {squared_norm(a), squared_norm(b)};
  EXPECT_EQ(global_norm_of(squares), global_norm(tensors));
  EXPECT_NEAR(13.0 * clip_factor(13.0, 1.0), 1.0, 1e-6);
  EXPECT_EQ(clip_factor(13.0, 20.0), 1.0);
  EXPECT_EQ(clip_factor(13.0, 0.0), 1.0);
  EXPECT_EQ(clip_factor(HUGE_VAL, 1.0), 0.0);
  EXPECT_EQ(clip_factor(std::nan(""), 1.0), 0.0);
  EXPECT_EQ(clip_factor(0.0, 1.0), 1.0);
}

TEST(Clip, ValuesAreCutAtTheBorder) {
  std::vector<float> gradient = {-3.0f, -0.5f, 0.0f, 0.5f, 0.75f, 1e30f};
  EXPECT_EQ(clip_values(gradient, 0.5f), 3u);
  EXPECT_EQ(gradient, (std::vector<float>{-0.5f, -0.5f, 0.0f, 0.5f, 0.5f, 0.5f}));
}

TEST(GroupsByName, TheFirstMatchDecides) {
  Group early, head;
  early.pattern = R"(re:blk\.[0-3]\.attn)";
  early.learning_rate_factor = 0.1;
  head.pattern = "output.weight";
  head.weight_decay = 0.5;
  head.rule = "adamw";
  const auto groups = Groups::make({early, head});
  ASSERT_TRUE(groups.ok()) << groups.error().text();
  const GroupChoice attention = groups->choose("blk.2.attn_q.weight", 0.1);
  EXPECT_EQ(attention.learning_rate_factor, 0.1);
  EXPECT_EQ(attention.weight_decay, 0.1);
  EXPECT_EQ(attention.index, 0);
  EXPECT_EQ(groups->choose("blk.2.attn_output.weight", 0.1).index, 0);
  EXPECT_EQ(groups->choose("output.weight", 0.1).rule, "adamw");
  EXPECT_EQ(groups->choose("output.weight", 0.1).weight_decay, 0.5);
  EXPECT_EQ(groups->choose("blk.12.attn_q.weight", 0.1).index, -1);
}

TEST(GroupsByName, BiasesAndNormsDoNotDecay) {
  const auto groups = Groups::make(undecayed_groups());
  ASSERT_TRUE(groups.ok());
  for (const char* name : {"blk.0.attn_norm.weight", "output_norm.weight", "blk.3.attn_q.bias",
                           "transformer.h.0.ln_1.weight", "model.layers.0.input_layernorm.weight",
                           "model.layers.0.self_attn.q_norm.weight"}) {
    EXPECT_EQ(groups->choose(name, 0.1).weight_decay, 0.0) << name;
  }
  for (const char* name :
       {"blk.0.attn_q.weight", "token_embd.weight", "model.norm_block.mlp.up_proj.weight",
        "normal.layers.0.weight.lora_a"}) {
    EXPECT_EQ(groups->choose(name, 0.1).weight_decay, 0.1) << name;
  }
}

TEST(GroupsByName, ErrorsNameTheGroup) {
  Group good, bad;
  good.pattern = "bias";
  bad.pattern = "re:blk[";
  const auto groups = Groups::make({good, bad});
  ASSERT_FALSE(groups.ok());
  EXPECT_EQ(groups.error().where, "parameter group 2");
  EXPECT_NE(groups.error().found.find("blk["), std::string::npos);
  bad.pattern = "";
  EXPECT_FALSE(Groups::make({bad}).ok());
  bad.pattern = "x";
  bad.weight_decay = -1.0;
  EXPECT_FALSE(Groups::make({bad}).ok());
}

TEST(Sam, GoesUpByRhoAndBackToTheSameBits) {
  std::vector<float> a = random_values(100, 1), b = random_values(33, 2);
  const std::vector<float> a_before = a, b_before = b;
  const std::vector<float> ga = random_values(100, 3), gb = random_values(33, 4);
  const std::span<const float> gradient[] = {ga, gb};
  Ascent ascent({a, b});
  const double factor = ascent.ascend(gradient, 0.05);
  EXPECT_TRUE(ascent.ascended());
  EXPECT_NEAR(factor * global_norm(gradient), 0.05, 1e-9);
  double moved = 0.0;
  for (std::size_t i = 0; i < 100; ++i) moved += std::pow(a[i] - a_before[i], 2.0);
  for (std::size_t i = 0; i < 33; ++i) moved += std::pow(b[i] - b_before[i], 2.0);
  EXPECT_NEAR(std::sqrt(moved), 0.05, 1e-6);
  ascent.restore();
  EXPECT_EQ(a, a_before);
  EXPECT_EQ(b, b_before);
  EXPECT_FALSE(ascent.ascended());
  const std::vector<float> zero_a(100), zero_b(33);
  const std::span<const float> zeros[] = {zero_a, zero_b};
  ascent.ascend(zeros, 0.05);
  EXPECT_EQ(a, a_before);
}

// f = (x y - 1)^2 / 2: every point of x y = 1 is a minimum, of sharpness x^2 + y^2. Descent keeps
// x^2 - y^2 nearly as it was; SAM walks along the valley to where it is flattest, x = y.
TEST(Sam, WalksToTheFlattestMinimum) {
  const auto sharpness_after = [](double rho) {
    std::vector<float> w = {3.0f, 0.5f};
    std::vector<float> gradient(2);
    const auto differentiate = [&] {
      const float residual = w[0] * w[1] - 1.0f;
      gradient = {residual * w[1], residual * w[0]};
    };
    for (int step = 0; step < 4000; ++step) {
      Ascent ascent({w});
      differentiate();
      const std::span<const float> direction[] = {gradient};
      ascent.ascend(direction, rho);
      differentiate();
      ascent.restore();
      for (std::size_t i = 0; i < 2; ++i) w[i] -= 0.02f * gradient[i];
    }
    EXPECT_NEAR(w[0] * w[1], 1.0, 0.2);
    return w[0] * w[0] + w[1] * w[1];
  };
  EXPECT_GT(sharpness_after(0.0), 8.0f);
  EXPECT_LT(sharpness_after(0.1), 3.0f);
}

TEST(Noise, IsNormalAndTheSameForAnySplit) {
  std::vector<float> whole(40001, 0.0f), split(40001, 0.0f);
  add_noise(whole, 1.0, 7, 3);
  for (std::size_t begin = 0; begin < split.size();) {
    const std::size_t count = std::min<std::size_t>(1 + begin % 977, split.size() - begin);
    add_noise(std::span(split).subspan(begin, count), 1.0, 7, 3, static_cast<std::int64_t>(begin));
    begin += count;
  }
  EXPECT_EQ(whole, split);
  const auto count = static_cast<double>(whole.size());
  double mean = 0.0, fourth = 0.0;
  for (const float z : whole) {
    mean += z / count;
    fourth += std::pow(z, 4.0) / count;
  }
  // Four standard errors: 1 / sqrt(n), sqrt(2 / n), sqrt(96 / n).
  EXPECT_NEAR(mean, 0.0, 4.0 / std::sqrt(count));
  EXPECT_NEAR(sum_of_squares(whole) / count, 1.0, 4.0 * std::sqrt(2.0 / count));
  EXPECT_NEAR(fourth, 3.0, 4.0 * std::sqrt(96.0 / count));
  std::vector<float> other(40001, 0.0f);
  add_noise(other, 1.0, 7, 4);
  EXPECT_LT(std::abs(dot(whole, other)) / count, 4.0 / std::sqrt(count));
}

TEST(Samo, MixesTheGradientWithALocalOneOfItsLength) {
  const std::vector<float> ga = random_values(300, 1), gb = random_values(50, 2);
  const std::span<const float> global[] = {ga, gb};
  std::vector<float> da(300), db(50);
  const std::span<float> out[] = {da, db};
  samo_direction(global, {5, 1.0, 0.9}, {.alpha = 1.0}, out);
  for (std::size_t i = 0; i < 300; ++i) EXPECT_FLOAT_EQ(da[i], ga[i]);
  samo_direction(global, {5, 1.0, 0.9}, {.alpha = 0.0}, out);
  EXPECT_NEAR(sum_of_squares(da), sum_of_squares(ga), 1e-4 * sum_of_squares(ga));
  EXPECT_NEAR(sum_of_squares(db), sum_of_squares(gb), 1e-4 * sum_of_squares(gb));
  std::vector<float> up = da;
  samo_direction(global, {5, 0.9, 1.0}, {.alpha = 0.0}, out);
  for (std::size_t i = 0; i < 300; ++i) EXPECT_EQ(da[i], -up[i]);
  samo_direction(global, {5, 1.0, 1.0}, {.alpha = 0.0}, out);
  EXPECT_EQ(sum_of_squares(da), 0.0);
}

// The local direction points up the task's own loss: for a quadratic the mean cosine of a probe in
// N dimensions with the gradient is sqrt(2 / (pi N)).
TEST(Samo, LocalDirectionsPointUpTheirLoss) {
  constexpr std::size_t kSize = 64;
  const std::vector<float> x = random_values(kSize, 1);
  const std::span<const float> global[] = {x};
  const auto loss = [](std::span<const float> at) { return 0.5 * sum_of_squares(at); };
  double cosine = 0.0;
  constexpr int kProbes = 2000;
  for (std::uint64_t seed = 0; seed < kProbes; ++seed) {
    std::vector<float> up = x, down = x, direction(kSize);
    add_noise(up, 0.01, seed, 0);
    add_noise(down, -0.01, seed, 0);
    const std::span<float> out[] = {direction};
    samo_direction(global, {seed, loss(up), loss(down)}, {.alpha = 0.0}, out);
    cosine += dot(direction, x) / sum_of_squares(x) / kProbes;
  }
  const double expected = std::sqrt(2.0 / (3.14159265 * kSize));
  // Four standard errors of a mean whose terms are below 1 / sqrt(N) in size.
  EXPECT_NEAR(cosine, expected, 4.0 / std::sqrt(kSize * 1.0 * kProbes));
}

}  // namespace
}  // namespace hone::optim

// What every update rule of the list promises, with every one of its choices.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <cmath>

#include "base/file.h"
#include "base/threads.h"
#include "optim/battery.h"
#include "optim/schedule.h"

namespace hone::optim {
namespace {

class Rules : public testing::TestWithParam<Variant> {};
class ElementWiseRules : public Rules {};

std::vector<float> start_of(Shape2 shape) {
  return random_values(static_cast<std::size_t>(shape.elements()), 11);
}

std::vector<float> gradient_of(Shape2 shape, std::int64_t step) {
  return random_values(static_cast<std::size_t>(shape.elements()),
                       100 + static_cast<std::uint64_t>(step));
}

TEST_P(Rules, DescribeThemselves) {
  const UpdateRule& rule = *GetParam().rule;
  EXPECT_EQ(find_rule(rule.name), &rule);
  EXPECT_FALSE(rule.summary.empty());
  EXPECT_FALSE(rule.source.empty());
  EXPECT_GT(rule.learning_rate, 0.0);
  for (const Setting& setting : rule.defaults) {
    EXPECT_FALSE(setting.source.empty()) << setting.name;
    // The default is a value that setting it would take.
    Settings settings(rule.defaults);
    const std::string text =
        setting.choices.empty() ? std::to_string(setting.value) : std::string(setting.word);
    if (setting.value == 0.0 || setting.value >= 1e-3) {
      EXPECT_TRUE(settings.set(setting.name, text).ok()) << setting.name;
    }
  }
  const Settings settings = GetParam().settings();
  const auto again = Settings::parse(rule, settings.text());
  ASSERT_TRUE(again.ok()) << again.error().text();
  EXPECT_EQ(*again, settings);
}

// f = sum a_i / 2 (w_i - c_i)^2, a in [0.5, 2], with rates of 5 % of the distance, falling to 0.
TEST_P(Rules, ConvergeOnAQuadratic) {
  for (const Shape2 shape : {Shape2{12, 20}, Shape2{20, 12}, Shape2{1, 37}}) {
    Stepped tensor(GetParam(), shape, start_of(shape));
    const std::size_t size = tensor.weights.size();
    const std::vector<float> target = random_values(size, 12);
    std::vector<float> curvature = random_values(size, 13);
    for (float& a : curvature) a = 0.5f + 1.5f / (1.0f + std::exp(-a));
    const auto loss = [&] {
      double sum = 0.0;
      for (std::size_t i = 0; i < size; ++i) {
        const double distance = tensor.weights[i] - target[i];
        sum += 0.5 * curvature[i] * distance * distance;
      }
      return sum;
    };
    const double before = loss();
    Schedule schedule;
    schedule.kind = ScheduleKind::kLinear;
    schedule.steps = 400;
    // Far enough for distances of about 1.4 an element, for muon of about 11 a singular value.
    // Shampoo's own step, not grafted, gets as small as the gradient does beside its running mean.
    schedule.learning_rate = GetParam().rule->name == "muon"     ? 0.15
                             : GetParam().change == "graft=none" ? 0.5
                                                                 : 0.05;
    std::vector<float> gradient(size);
    for (std::int64_t step = 1; step <= schedule.steps; ++step) {
      for (std::size_t i = 0; i < size; ++i) {
        gradient[i] = curvature[i] * (tensor.weights[i] - target[i]);
      }
      tensor.step(gradient, scheduled(schedule, step));
    }
    EXPECT_LT(loss(), 1e-2 * before) << shape.rows << " x " << shape.columns;
  }
}

// Valleys (Rosenbrock 1960 with 10 for 100): f = sum (1 - x)^2 + 10 (y - x^2)^2 over pairs, the
// rows of a matrix; from (-1.2 …, 1 …).
TEST_P(Rules, DescendTheValleyOfRosenbrock) {
  constexpr Shape2 kShape{2, 8};
  std::vector<float> start(16);
  for (std::size_t i = 0; i < 8; ++i) {
    start[i] = -1.2f + 0.05f * static_cast<float>(i);
    start[8 + i] = 1.0f - 0.03f * static_cast<float>(i);
  }
  Stepped tensor(GetParam(), kShape, start);
  const auto loss = [&] {
    double sum = 0.0;
    for (std::size_t i = 0; i < 8; ++i) {
      const double x = tensor.weights[i], y = tensor.weights[8 + i];
      sum += (1.0 - x) * (1.0 - x) + 10.0 * (y - x * x) * (y - x * x);
    }
    return sum;
  };
  const double before = loss();
  Schedule schedule;
  schedule.kind = ScheduleKind::kLinear;
  schedule.steps = 4000;
  schedule.learning_rate = GetParam().rule->name == "sgd" ? 1e-3 : 1e-2;
  std::vector<float> gradient(16);
  for (std::int64_t step = 1; step <= schedule.steps; ++step) {
    for (std::size_t i = 0; i < 8; ++i) {
      const double x = tensor.weights[i], y = tensor.weights[8 + i];
      gradient[i] = static_cast<float>(-2.0 * (1.0 - x) - 40.0 * x * (y - x * x));
      gradient[8 + i] = static_cast<float>(20.0 * (y - x * x));
    }
    tensor.step(gradient, scheduled(schedule, step));
  }
  EXPECT_LT(loss(), 0.05 * before);
}

// State and weights copied away after 7 steps go on to the same bits as without a stop.
TEST_P(Rules, ResumeToTheSameBits) {
  for (const Shape2 shape : odd_shapes(*GetParam().rule)) {
    Stepped whole(GetParam(), shape, start_of(shape));
    whole.weight_decay = 0.1;
    for (std::int64_t step = 1; step <= 7; ++step) whole.step(gradient_of(shape, step), 0.01);
    Stepped resumed(GetParam(), shape, whole.weights);
    resumed.weight_decay = 0.1;
    resumed.state = whole.state;
    resumed.steps = whole.steps;
    for (std::int64_t step = 8; step <= 21; ++step) {
      whole.step(gradient_of(shape, step), 0.01);
      resumed.step(gradient_of(shape, step), 0.01);
    }
    EXPECT_TRUE(whole.same_as(resumed)) << shape.rows << " x " << shape.columns;
  }
}

TEST_P(ElementWiseRules, MayBeSplit) {
  const UpdateRule& rule = *GetParam().rule;
  for (const Shape2 shape : odd_shapes(*GetParam().rule)) {
    Stepped whole(GetParam(), shape, start_of(shape));
    for (std::int64_t step = 1; step <= 5; ++step) whole.step(gradient_of(shape, step), 0.01);
    for (const int parts : {2, 3}) {
      Stepped split(GetParam(), shape, start_of(shape));
      for (std::int64_t step = 1; step <= 5; ++step) {
        const std::vector<float> gradient = gradient_of(shape, step);
        const UpdateTask all = split.task(gradient, 0.01);
        for (int part = parts - 1; part >= 0; --part) {  // in any order
          const Range range = share_of(shape.elements(), part, parts, rule.granule);
          const auto begin = static_cast<std::size_t>(range.begin);
          const auto count = static_cast<std::size_t>(range.end - range.begin);
          const StateRange at = state_range(rule, shape, split.settings, range.begin, range.end);
          UpdateTask task = all;
          task.weights = all.weights.subspan(begin, count);
          task.gradient = all.gradient.subspan(begin, count);
          task.state = all.state.subspan(at.offset, at.size);
          rule.update(task);
        }
      }
      EXPECT_TRUE(whole.same_as(split)) << parts << " parts of " << shape.elements();
    }
  }
}

TEST_P(ElementWiseRules, HaveStateRangesThatAreTheWholeState) {
  const UpdateRule& rule = *GetParam().rule;
  const Settings settings = GetParam().settings();
  for (const Shape2 shape : odd_shapes(*GetParam().rule)) {
    std::size_t end = 0;
    for (int part = 0; part < 3; ++part) {
      const Range range = share_of(shape.elements(), part, 3, rule.granule);
      if (range.begin == range.end) continue;
      const StateRange at = state_range(rule, shape, settings, range.begin, range.end);
      EXPECT_EQ(at.offset, end);
      end = at.offset + at.size;
    }
    EXPECT_EQ(end, rule.state_bytes(shape, settings));
  }
}

TEST_P(Rules, StandStillWithoutAGradient) {
  for (const Shape2 shape : odd_shapes(*GetParam().rule)) {
    Stepped tensor(GetParam(), shape, start_of(shape));
    const std::vector<float> zeros(tensor.weights.size(), 0.0f);
    for (int i = 0; i < 12; ++i) tensor.step(zeros, 0.01);
    EXPECT_EQ(tensor.weights, start_of(shape));
    // After a gradient, and with weights that are 0 as an adapter's are.
    Stepped moved(GetParam(), shape, zeros);
    moved.step(gradient_of(shape, 1), 0.01);
    for (int i = 0; i < 30; ++i) moved.step(zeros, 0.01);
    for (const float weight : moved.weights) ASSERT_TRUE(std::isfinite(weight));
  }
}

TEST_P(Rules, ScaleTheGradientAsIfItCameScaled) {
  for (const Shape2 shape : odd_shapes(*GetParam().rule)) {
    Stepped told(GetParam(), shape, start_of(shape));
    Stepped scaled(GetParam(), shape, start_of(shape));
    told.gradient_scale = 0.25f;  // exact, so that the product is the same wherever it is made
    for (std::int64_t step = 1; step <= 12; ++step) {
      std::vector<float> gradient = gradient_of(shape, step);
      told.step(gradient, 0.01);
      for (float& value : gradient) value *= 0.25f;
      scaled.step(gradient, 0.01);
    }
    // adamw8 draws its rounding from the bits of the gradient that it is given.
    if (told.rule.name != "adamw8") {
      EXPECT_TRUE(told.same_as(scaled)) << shape.rows << " x " << shape.columns;
    } else {
      for (std::size_t i = 0; i < told.weights.size(); ++i) {
        EXPECT_NEAR(told.weights[i], scaled.weights[i], 0.01 * 12) << i;
      }
    }
  }
}

// Tiny and huge gradients and weights leave nothing that is not finite.
TEST_P(Rules, StayFiniteOverTwentyPowersOfTen) {
  for (const Shape2 shape : odd_shapes(*GetParam().rule)) {
    for (const float size : {1e-12f, 1e-4f, 1e4f, 1e8f}) {
      Stepped tensor(GetParam(), shape, start_of(shape));
      for (std::int64_t step = 1; step <= 12; ++step) {
        std::vector<float> gradient = gradient_of(shape, step);
        for (float& value : gradient) value *= size;
        tensor.step(gradient, 1e-3);
      }
      for (const float weight : tensor.weights) ASSERT_TRUE(std::isfinite(weight)) << size;
    }
  }
}

TEST_P(Rules, DecayWeights) {
  for (const Shape2 shape : odd_shapes(*GetParam().rule)) {
    Stepped tensor(GetParam(), shape, start_of(shape));
    tensor.weight_decay = 0.5;
    const std::vector<float> zeros(tensor.weights.size(), 0.0f);
    tensor.step(gradient_of(shape, 1), 0.0);
    for (int i = 0; i < 10; ++i) tensor.step(zeros, 0.1);
    // (1 - 0.05)^10; coupled decay goes through the momentum and is faster.
    const std::vector<float> start = start_of(shape);
    const bool coupled = GetParam().change == "decay=coupled";
    for (std::size_t i = 0; i < start.size(); ++i) {
      if (coupled || std::abs(start[i]) < 1e-3f) continue;
      const float moved = tensor.weights[i] / start[i];
      // The one gradient moves what has a momentum; the rest is pure decay.
      if (tensor.rule.name == "adafactor") {
        EXPECT_NEAR(moved, std::pow(0.95, 10), 1e-4) << i;
      }
      EXPECT_TRUE(std::isfinite(moved));
    }
    Stepped still(GetParam(), shape, start_of(shape));
    still.weight_decay = 0.5;
    for (int i = 0; i < 10; ++i) still.step(zeros, 0.1);
    const bool soap = still.rule.name == "soap" && shape.is_matrix();  // waits for a gradient
    for (std::size_t i = 0; i < start.size(); ++i) {
      const double expected = soap ? start[i] : start[i] * std::pow(0.95, 10);
      if (!coupled) {
        EXPECT_NEAR(still.weights[i], expected, 1e-5 * std::abs(start[i])) << i;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, Rules, testing::ValuesIn(all_variants()),
                         [](const auto& info) { return info.param.name(); });
INSTANTIATE_TEST_SUITE_P(All, ElementWiseRules, testing::ValuesIn(element_wise_variants()),
                         [](const auto& info) { return info.param.name(); });

TEST(Registry, AnUnknownRuleIsAnErrorThatListsThem) {
  const auto rule = rule_named("adam");
  ASSERT_FALSE(rule.ok());
  EXPECT_NE(rule.error().expected.find("adamw, adamw8, adafactor, lion, lion_k"),
            std::string::npos);
  EXPECT_NE(rule.error().advice.find("adamw"), std::string::npos);
  EXPECT_TRUE(rule_named("lion").ok());
}

// The tables of docs/optimizers.md are what the code says.
TEST(Registry, TheDocumentationHasEveryRuleWithItsDefaults) {
  const auto text = read_file(std::string(HONE_SOURCE_DIR) + "/docs/optimizers.md");
  ASSERT_TRUE(text.ok()) << text.error().text();
  for (const UpdateRule* rule : all_rules()) {
    const std::string row =
        fmt::format("| `{}` | {} | {} | `{}` |", rule->name, rule->learning_rate,
                    rule->weight_decay, Settings(rule->defaults).text());
    EXPECT_NE(text->find(row), std::string::npos) << "no row:\n" << row;
  }
}

TEST(SettingsText, ErrorsSayWhatThereIs) {
  const UpdateRule& lion = *find_rule("lion_k");
  EXPECT_TRUE(Settings::parse(lion, " beta1 = 0.5 , kappa=huber ").ok());
  const auto error = [&](const char* text) { return Settings::parse(lion, text).error().text(); };
  EXPECT_NE(error("beta3=1").find("kappa, beta1, beta2"), std::string::npos);
  EXPECT_NE(error("kapa=l1").find("did you mean 'kappa'"), std::string::npos);
  EXPECT_NE(error("kappa=l3").find("l1|l2|lp|huber"), std::string::npos);
  EXPECT_NE(error("beta1=1").find("at least 0 and below 1"), std::string::npos);
  EXPECT_NE(error("beta1=nan").find("at least 0"), std::string::npos);
  EXPECT_NE(error("beta1=0.9x").find("'0.9x'"), std::string::npos);
  EXPECT_NE(error("group=2.5").find("a whole number"), std::string::npos);
  EXPECT_NE(error("beta1").find("name=value"), std::string::npos);
}

TEST(StateBytes, AreWhatTheTableSays) {
  const auto bytes = [](const char* name, Shape2 shape, const char* settings = "") {
    const UpdateRule& rule = *find_rule(name);
    return static_cast<double>(rule.state_bytes(shape, *Settings::parse(rule, settings))) /
           static_cast<double>(shape.elements());
  };
  constexpr Shape2 kSquare{512, 512};
  EXPECT_EQ(bytes("sgd", kSquare), 4.0);
  EXPECT_EQ(bytes("sgd", kSquare, "momentum=0"), 0.0);
  EXPECT_EQ(bytes("adamw", kSquare), 8.0);
  EXPECT_EQ(bytes("adamw8", kSquare), 2.0 + 8.0 / 256.0);
  EXPECT_EQ(bytes("adafactor", kSquare), 4.0 * 2.0 / 512.0);
  EXPECT_EQ(bytes("adafactor", {1, 512}), 4.0);
  EXPECT_EQ(bytes("lion", kSquare), 4.0);
  EXPECT_EQ(bytes("lion_k", kSquare), 4.0);
  EXPECT_EQ(bytes("muon", kSquare), 4.0);
  EXPECT_EQ(bytes("muon", {1, 512}), 8.0);
  EXPECT_NEAR(bytes("shampoo", kSquare), 8.0 + 16.0, 1e-3);
  EXPECT_NEAR(bytes("shampoo", kSquare, "graft=none"), 4.0 + 16.0, 1e-3);
  EXPECT_NEAR(bytes("soap", kSquare), 8.0 + 16.0, 1e-3);
  EXPECT_NEAR(bytes("soap", kSquare, "limit=100"), 8.0, 1e-3);
}

}  // namespace
}  // namespace hone::optim

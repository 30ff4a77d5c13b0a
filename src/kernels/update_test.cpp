// Steps of the update rules against the same operations in plain C++, bit for bit on every
// instruction set, and the 8-bit maps by what they promise.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <bit>

#include "kernels/battery.h"

namespace hone::kernels {
namespace {

constexpr float kScale = 0.37f;

UpdateRun run_of(Row& weights, const Row& gradient) {
  return {weights.span(), gradient.view(), kScale, 0.01f, 0.999f};
}

std::size_t blocks_of(std::size_t size) { return (size + kUpdateBlock - 1) / kUpdateBlock; }

TEST(Update, MomentumEqualsItsFormula) {
  for_each_case([](const KernelTable& table, std::size_t size, std::size_t misaligned) {
    const Row gradient = random_row(size, -2.0f, 2.0f, 1, misaligned);
    const Row before = random_row(size, -2.0f, 2.0f, 2);
    const Row state_before = random_row(size, -2.0f, 2.0f, 3);
    for (const bool stateless : {false, true}) {
      for (const bool nesterov : {false, true}) {
        Row weights = random_row(size, -2.0f, 2.0f, 2);
        Row state = random_row(size, -2.0f, 2.0f, 3);
        MomentumTask task{run_of(weights, gradient), {}, 0.9f, 0.02f, nesterov};
        if (!stateless) task.state = state.span();
        table.momentum_step(task);
        for (std::size_t i = 0; i < size; ++i) {
          const float g = before[i] * 0.02f + gradient[i] * kScale;
          const float b = 0.9f * state_before[i] + g;
          const bool plain = stateless || size == 0;
          const float change = plain ? g : nesterov ? 0.9f * b + g : b;
          ASSERT_EQ(weights[i], before[i] * 0.999f - 0.01f * change) << i;
          ASSERT_EQ(state[i], plain ? state_before[i] : b) << i;
        }
        ASSERT_TRUE(weights.intact() && state.intact());
      }
    }
  });
}

TEST(Update, SignEqualsItsFormula) {
  for_each_case([](const KernelTable& table, std::size_t size, std::size_t misaligned) {
    Row gradient = random_row(size, -2.0f, 2.0f, 1, misaligned);
    const Row before = random_row(size, -2.0f, 2.0f, 2);
    Row state_before = random_row(size, -2.0f, 2.0f, 3);
    if (size > 1) gradient[1] = state_before[1] = 0.0f;  // the sign of 0 is 0
    Row weights = random_row(size, -2.0f, 2.0f, 2);
    Row state(size);
    std::copy(state_before.span().begin(), state_before.span().end(), state.span().begin());
    table.sign_step({run_of(weights, gradient), state.span()});
    for (std::size_t i = 0; i < size; ++i) {
      const float g = gradient[i] * kScale;
      const float u = state_before[i] * 0.9f + g * 0.1f;
      const float sign = u > 0.0f ? 1.0f : u < 0.0f ? -1.0f : 0.0f;
      ASSERT_EQ(weights[i], before[i] * 0.999f - 0.01f * sign) << i;
      ASSERT_EQ(state[i], state_before[i] * 0.99f + g * 0.01f) << i;
    }
    ASSERT_TRUE(weights.intact() && state.intact());
  });
}

TEST(Update, AdamEqualsItsFormula) {
  for_each_case([](const KernelTable& table, std::size_t size, std::size_t misaligned) {
    const Row gradient = random_row(size, -2.0f, 2.0f, 1, misaligned);
    const Row before = random_row(size, -2.0f, 2.0f, 2);
    Row weights = random_row(size, -2.0f, 2.0f, 2);
    Row state = random_row(2 * kUpdateBlock * blocks_of(size), 0.0f, 1.0f, 3);
    const Row state_before = random_row(2 * kUpdateBlock * blocks_of(size), 0.0f, 1.0f, 3);
    AdamTask task{run_of(weights, gradient), state.span()};
    task.root_scale = 1.7f;
    table.adam_step(task);
    for (std::size_t i = 0; i < size; ++i) {
      const std::size_t at = i / kUpdateBlock * 2 * kUpdateBlock + i % kUpdateBlock;
      const float g = gradient[i] * kScale;
      const float m = state_before[at] * 0.9f + g * 0.1f;
      const float v = state_before[at + kUpdateBlock] * 0.999f + g * g * 0.001f;
      const float change = 0.01f * (m / (std::sqrt(v) * 1.7f + 1e-8f));
      ASSERT_EQ(weights[i], before[i] * 0.999f - change) << i;
      ASSERT_EQ(state[at], m) << i;
      ASSERT_EQ(state[at + kUpdateBlock], v) << i;
    }
    ASSERT_TRUE(weights.intact() && state.intact());
  });
}

TEST(Update, RootScaledEqualsItsFormula) {
  for_each_case([](const KernelTable& table, std::size_t size, std::size_t misaligned) {
    const Row gradient = random_row(size, -2.0f, 2.0f, 1, misaligned);
    const Row moments = random_row(size, 0.0f, 0.1f, 2);
    Row out(size, misaligned);
    table.root_scaled(gradient, kScale, moments, 1.3f, 0.02f, out);
    for (std::size_t i = 0; i < size; ++i) {
      const float root = std::sqrt(std::max(moments[i] * 1.3f, 0.02f));
      ASSERT_EQ(out[i], gradient[i] * kScale / root) << i;
    }
    ASSERT_TRUE(out.intact());
  });
}

struct Adam8Case {
  Row weights;
  Guarded<std::byte> state;
};

Adam8Case adam8_after(const KernelTable& table, std::size_t size, int steps, bool linear,
                      bool stochastic) {
  Adam8Case c{random_row(size, -2.0f, 2.0f, 2),
              Guarded<std::byte>(sizeof(Adam8Block) * blocks_of(size), 4)};
  std::fill(c.state.span().begin(), c.state.span().end(), std::byte{0});
  for (int step = 1; step <= steps; ++step) {
    const Row gradient = random_row(size, -1.0f, 1.0f, static_cast<std::uint32_t>(step));
    Adam8Task task;
    task.adam.run = run_of(c.weights, gradient);
    task.state = c.state.span();
    task.step = static_cast<std::uint32_t>(step);
    task.linear = linear;
    task.stochastic = stochastic;
    table.adam8_step(task);
  }
  return c;
}

// The scalar table is the reference: its code is the plain one, and the maps are tested below.
TEST(Update, Adam8HasTheSameBitsOnEveryTable) {
  const KernelTable& plain = *available_kernels().front();
  for_each_case([&](const KernelTable& table, std::size_t size, std::size_t) {
    for (const bool linear : {false, true}) {
      for (const bool stochastic : {false, true}) {
        const Adam8Case expected = adam8_after(plain, size, 3, linear, stochastic);
        const Adam8Case got = adam8_after(table, size, 3, linear, stochastic);
        for (std::size_t i = 0; i < size; ++i) {
          ASSERT_EQ(std::bit_cast<std::uint32_t>(got.weights[i]),
                    std::bit_cast<std::uint32_t>(expected.weights[i]))
              << i;
        }
        const auto a = got.state.view(), b = expected.state.view();
        ASSERT_TRUE(std::equal(a.begin(), a.end(), b.begin()));
        ASSERT_TRUE(got.weights.intact() && got.state.intact());
      }
    }
  });
}

// One step from nothing: m = 0.1 g, v = 0.001 g^2, so the next step with gradient 0 shows what
// the codes kept: m decays to 0.9 * kept.
struct Kept {
  std::vector<float> first, second;
};

Kept kept_after_one_step(const Row& gradient, bool linear, bool stochastic) {
  Row weights = random_row(gradient.size(), -1.0f, 1.0f, 5);
  std::vector<Adam8Block> blocks(blocks_of(gradient.size()));
  Adam8Task task;
  task.adam.run = {weights.span(), gradient.view(), 1.0f, 0.0f, 1.0f};
  task.adam.beta1 = task.adam.beta2 = 0.0f;  // m = g, v = g^2
  task.adam.one_minus_beta1 = task.adam.one_minus_beta2 = 1.0f;
  task.state = std::as_writable_bytes(std::span(blocks));
  task.linear = linear;
  task.stochastic = stochastic;
  kernels().adam8_step(task);
  // Read back: beta 1, no gradient; the change of a weight is then m / sqrt(v) and v's code alone
  // would be hidden, so that decoding is done here by the published map.
  Kept kept;
  for (std::size_t i = 0; i < gradient.size(); ++i) {
    const Adam8Block& block = blocks[i / kUpdateBlock];
    const int code = block.first[i % kUpdateBlock];
    const int code2 = block.second[i % kUpdateBlock];
    const auto value = [linear](int level, float c, int levels) {
      if (linear) return static_cast<float>(level) / static_cast<float>(levels);
      return std::bit_cast<float>(std::bit_cast<std::int32_t>(c) + (level << 19)) - c;
    };
    const float m = value(std::abs(code), 1.0f / 240.0f, 127) * block.first_scale;
    const float v = value(code2, 1.0f / 61680.0f, 255);
    kept.first.push_back(code < 0 ? -m : m);
    kept.second.push_back((linear ? v * v : v) * block.second_scale);
  }
  return kept;
}

TEST(Update, DynamicMapIsWithinItsStep) {
  // Magnitudes over six powers of ten.
  Row gradient = random_row(512, -1.0f, 1.0f, 7);
  for (std::size_t i = 0; i < 512; ++i) {
    gradient[i] *= std::pow(10.0f, -static_cast<float>(i % 7));
  }
  gradient[0] = gradient[256] = 1.0f;  // the block's largest
  for (const bool stochastic : {false, true}) {
    const Kept kept = kept_after_one_step(gradient, false, stochastic);
    // A step is 1/16 of the octave's lower end, so at most 1/16 of x + c; to nearest half of it.
    const double part = (stochastic ? 1.0 : 0.5) / 16.0;
    for (std::size_t i = 0; i < 512; ++i) {
      const double m = std::abs(static_cast<double>(gradient[i]));
      EXPECT_NEAR(kept.first[i], gradient[i], part * (m + 1.0 / 240.0) * 1.001) << i;
      const double v = m * m;
      // The least code of v > 0 is 1: c / 16 above nothing.
      EXPECT_NEAR(kept.second[i], v, 1.001 * std::max(part, 1.0 / 16.0) * (v + 1.0 / 61680.0)) << i;
      EXPECT_GT(kept.second[i], 0.0f) << i;
    }
    EXPECT_EQ(kept.first[0], 1.0f);
    EXPECT_EQ(kept.second[0], 1.0f);
  }
}

TEST(Update, LinearMapIsWithinItsStep) {
  Row gradient = random_row(512, -1.0f, 1.0f, 7);
  gradient[0] = gradient[256] = 1.0f;
  const Kept kept = kept_after_one_step(gradient, true, false);
  for (std::size_t i = 0; i < 512; ++i) {
    EXPECT_NEAR(kept.first[i], gradient[i], 0.5001 / 127.0) << i;
    EXPECT_NEAR(std::sqrt(kept.second[i]), std::abs(gradient[i]), 1.001 / 255.0) << i;
  }
}

// The mean of n roundings of the same value is right within four standard errors of a coin toss
// over one step: 4 * (1 / 16) (x + c) / (2 sqrt(n)).
TEST(Update, StochasticRoundingHasNoBias) {
  constexpr std::size_t kCount = 64 * kUpdateBlock;
  for (const float value : {0.8131f, 0.0217f, 0.00012f}) {
    Row gradient(kCount);
    for (std::size_t i = 0; i < kCount; ++i) {
      // The hash needs different bits, not only different weights: the last bits of the value.
      gradient[i] =
          i % kUpdateBlock == 0 ? 1.0f : value * (1.0f + 1e-6f * static_cast<float>(i % 7));
    }
    const Kept kept = kept_after_one_step(gradient, false, true);
    double sum = 0.0, expected = 0.0;
    std::size_t count = 0;
    for (std::size_t i = 0; i < kCount; ++i) {
      if (i % kUpdateBlock == 0) continue;
      sum += kept.first[i];
      expected += gradient[i];
      ++count;
    }
    const double step = (value + 1.0 / 240.0) / 16.0;
    const double n = static_cast<double>(count);
    EXPECT_NEAR(sum / n, expected / n, 4.0 * step / (2.0 * std::sqrt(n))) << value;
  }
}

}  // namespace
}  // namespace hone::kernels

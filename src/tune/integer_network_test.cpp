// Networks in integers: the arithmetic against doubles, the forward pass against plain loops, and
// learning.
// SPDX-License-Identifier: Apache-2.0
#include "tune/integer_network.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "base/random.h"

namespace hone::tune::integer {
namespace {

TEST(IntegerArithmetic, RoundsBetweenNeighboursWithoutBias) {
  EXPECT_EQ(rounded(5, 0), 5);
  // Cut bits 01|10: the upper half is not larger; 10|01: it is.
  EXPECT_EQ(rounded(0b1010110, 4), 0b101);
  EXPECT_EQ(rounded(0b1011001, 4), 0b110);
  EXPECT_EQ(rounded(-0b1011001, 4), -0b110);
  for (const std::int32_t shift : {1, 2, 3, 5, 8, 11}) {
    std::int64_t sum = 0;
    for (std::int32_t value = 0; value < 1 << 14; ++value) {
      const std::int32_t up = rounded(value, shift);
      ASSERT_GE(up, value >> shift);
      ASSERT_LE(up, (value >> shift) + 1);
      ASSERT_EQ(rounded(-value, shift), -up);
      sum += (std::int64_t{up} << shift) - value;
    }
    // Over all cut parts it rounds up as often as down, but for the ties of both halves: their
    // share is 2^-(shift / 2), or twice that of one half where it is the wider.
    const double bias = static_cast<double>(sum) / (1 << 14) / (1 << shift);
    EXPECT_LE(std::abs(bias), std::pow(2.0, -(shift / 2))) << shift;
  }
}

TEST(IntegerArithmetic, BitsAndSaturation) {
  EXPECT_EQ(bits_of(0), 0);
  EXPECT_EQ(bits_of(127), 7);
  EXPECT_EQ(bits_of(128), 8);
  EXPECT_EQ(bits_of_largest(std::vector<std::int32_t>{3, -200, 7}), 8);
  EXPECT_EQ(moved(120, 15, 1), 127);
  EXPECT_EQ(moved(-120, 15, -1), -127);
  std::vector<std::int8_t> values = {-126, 5};
  subtract_all(values, std::vector<std::int8_t>{3, -2});
  EXPECT_EQ(values, (std::vector<std::int8_t>{-127, 7}));
}

TEST(IntegerArithmetic, LogarithmsAndPowers) {
  for (std::int64_t x = 1 << 12; x < std::int64_t{1} << 21; x += 977) {
    const double expected = std::log2(static_cast<double>(x) / 65536) * 1024;
    // 0.009 by the quadratic, two units by cutting.
    ASSERT_NEAR(static_cast<double>(log2_of(x)), expected, 9.3 + 2) << x;
  }
  for (std::int64_t x = 0; x < 12'000; x += 7) {
    const double expected = 65536 * std::exp2(-static_cast<double>(x) / 1024);
    ASSERT_NEAR(static_cast<double>(power_of(x)), expected, 0.0031 * expected + 3) << x;
  }
}

double reference_loss(std::span<const std::int8_t> row, std::int32_t exponent, std::size_t target) {
  double sum = 0;
  for (const std::int8_t m : row) sum += std::exp(std::ldexp(m, exponent));
  return (std::log(sum) - std::ldexp(row[target], exponent)) / std::log(2.0);
}

TEST(IntegerArithmetic, LossAndGradientAgainstDoubles) {
  Random random(4);
  for (const std::int32_t exponent : {-9, -6, -4, -2}) {
    std::vector<std::int8_t> logits;
    for (int i = 0; i < 50; ++i) {
      logits.push_back(static_cast<std::int8_t>(std::int32_t(random.below(255)) - 127));
    }
    const std::vector<std::int32_t> targets = {0, 3, 9, 5, 5};
    double expected = 0;
    for (std::size_t n = 0; n < 5; ++n) {
      expected += reference_loss(std::span(logits).subspan(10 * n, 10), exponent,
                                 static_cast<std::size_t>(targets[n]));
    }
    const double found = static_cast<double>(loss_of(logits, exponent, 10, targets)) / 1024;
    // A logarithm's 0.009, powers' 0.003 / ln 2, and a constant of log2(e) good to 2^-15.
    EXPECT_NEAR(found, expected, 5 * 0.02 + 1e-4 * expected) << exponent;
    std::vector<std::int8_t> gradient(50);
    loss_gradient(logits, exponent, 10, targets, gradient);
    for (std::size_t i = 0; i < 50; ++i) {
      double sum = 0;
      for (std::size_t v = 0; v < 10; ++v) {
        sum += std::exp(std::ldexp(logits[i / 10 * 10 + v], exponent));
      }
      const double share = std::exp(std::ldexp(logits[i], exponent)) / sum;
      const bool is_target = static_cast<std::int32_t>(i % 10) == targets[i / 10];
      EXPECT_NEAR(gradient[i], 127 * (share - (is_target ? 1 : 0)), 1.2);
    }
  }
}

TEST(IntegerArithmetic, ProbesAreUniformSparseAndReplayed) {
  std::vector<std::int8_t> z(40'000), again(40'000);
  const Probe probe{7, 3, 2, 15, 32768};
  fill_probe(probe, z);
  fill_probe(probe, again);
  EXPECT_EQ(z, again);
  std::array<int, 31> counts{};
  for (const std::int8_t value : z) {
    ASSERT_LE(std::abs(value), 15);
    ++counts[static_cast<std::size_t>(value + 15)];
  }
  // Half are 0 by chance, and a 31st of the rest: 6 standard deviations.
  EXPECT_NEAR(counts[15], 40'000 * (0.5 + 0.5 / 31), 600);
  for (std::size_t i = 0; i < 31; ++i) {
    if (i == 15) continue;
    EXPECT_NEAR(counts[i], 20'000.0 / 31, 6 * std::sqrt(20'000.0 / 31)) << i;
  }
  Probe other = probe;
  other.step = 4;
  fill_probe(other, again);
  EXPECT_NE(z, again);
}

struct Examples {
  std::vector<std::int8_t> images;
  std::vector<std::int32_t> targets;
};

// Stripes whose place is the class.
Examples examples(std::int32_t count) {
  Examples out;
  Random random(9);
  for (std::int32_t i = 0; i < count; ++i) {
    out.targets.push_back(i % 10);
    for (std::int32_t pixel = 0; pixel < 784; ++pixel) {
      const bool lit = pixel / 28 / 3 == i % 10;
      out.images.push_back(static_cast<std::int8_t>((lit ? 90 : 0) + random.below(30)));
    }
  }
  return out;
}

// The forward pass by plain loops: values of the layer below, one image.
std::vector<std::int32_t> plain_layer(std::span<const std::int8_t> w, std::size_t rows,
                                      std::span<const std::int8_t> in, std::int32_t side,
                                      std::int32_t channels) {
  std::vector<std::int32_t> out;
  if (side == 0) {
    for (std::size_t r = 0; r < rows; ++r) {
      out.push_back(std::inner_product(in.begin(), in.end(), w.begin() + r * in.size(), 0));
    }
    return out;
  }
  const auto sum = [&](std::int32_t y, std::int32_t x, std::size_t r) {
    std::int32_t total = 0;
    for (std::int32_t k = 0; k < 25 * channels; ++k) {
      const std::int32_t row = y + k / channels / 5 - 2, column = x + k / channels % 5 - 2;
      if (row < 0 || row >= side || column < 0 || column >= side) continue;
      const std::int32_t at = (row * side + column) * channels + k % channels;
      total += w[r * static_cast<std::size_t>(25 * channels) + static_cast<std::size_t>(k)] *
               in[static_cast<std::size_t>(at)];
    }
    return total;
  };
  for (std::int32_t y = 0; y < side; y += 2) {
    for (std::int32_t x = 0; x < side; x += 2) {
      for (std::size_t r = 0; r < rows; ++r) {
        out.push_back(
            std::max({0, sum(y, x, r), sum(y, x + 1, r), sum(y + 1, x, r), sum(y + 1, x + 1, r)}));
      }
    }
  }
  return out;
}

TEST(IntegerLeNet, EqualsPlainLoops) {
  IntegerLeNet network({});
  EXPECT_EQ(network.parameters(), 107'550);
  const Examples data = examples(1);
  std::vector<std::int8_t> values = data.images;
  // 127 2^e at least sqrt(6 / in), of the last layer sqrt(3 / in), and the smallest such e.
  std::int32_t exponent = -7;
  const std::array<double, 5> squares = {6.0 / 25, 6.0 / 150, 6.0 / 784, 6.0 / 120, 3.0 / 84};
  const std::array<std::size_t, 5> rows = {6, 16, 120, 84, 10};
  const std::array<std::int32_t, 5> sides = {28, 14, 0, 0, 0}, channels = {1, 6, 0, 0, 0};
  for (std::size_t layer = 0; layer < 5; ++layer) {
    auto wide =
        plain_layer(network.weights(layer), rows[layer], values, sides[layer], channels[layer]);
    if (layer < 4) {
      for (std::int32_t& value : wide) value = std::max(value, 0);
    }
    const std::int32_t shift = std::max(0, bits_of_largest(wide) - 7);
    exponent +=
        static_cast<std::int32_t>(std::ceil(std::log2(std::sqrt(squares[layer]) / 127))) + shift;
    values.assign(wide.size(), 0);
    round_all(wide, shift, values);
  }
  EXPECT_EQ(network.loss(data.images, data.targets), loss_of(values, exponent, 10, data.targets));
}

TEST(IntegerLeNet, SameSeedSameBitsAndOnlySmallSteps) {
  const Examples data = examples(20);
  IntegerLeNet first({.cut = 4, .bits = 1}), second({.cut = 4, .bits = 1});
  const std::vector<std::int8_t> before(first.weights(2).begin(), first.weights(2).end());
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(first.step(data.images, data.targets), second.step(data.images, data.targets));
  }
  int moved_weights = 0;
  for (std::size_t i = 0; i < before.size(); ++i) {
    EXPECT_EQ(first.weights(2)[i], second.weights(2)[i]);
    EXPECT_LE(std::abs(first.weights(2)[i] - before[i]), 3);  // a bit a step
    moved_weights += first.weights(2)[i] != before[i] ? 1 : 0;
  }
  EXPECT_GT(moved_weights, 0);
}

TEST(IntegerLeNet, TailsLearn) {
  const Examples data = examples(40);
  for (const std::size_t cut : {4, 3}) {
    IntegerLeNet network({.cut = cut});
    const std::int64_t before = network.loss(data.images, data.targets);
    for (int i = 0; i < 40; ++i) network.step(data.images, data.targets);
    EXPECT_LT(network.loss(data.images, data.targets), before * 3 / 4) << cut;
    EXPECT_GE(network.right(data.images, data.targets), 24) << cut;
  }
}

}  // namespace
}  // namespace hone::tune::integer

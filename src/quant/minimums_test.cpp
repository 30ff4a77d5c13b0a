// Shifting minima: codes stay, weights move by the shift, and what is rounded is bounded.
// SPDX-License-Identifier: Apache-2.0
#include "quant/minimums.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "base/random.h"
#include "quant/codec.h"

namespace hone::quant {
namespace {

struct Case {
  DType from;
  DType to;
};

constexpr std::size_t kWeights = 2048;

std::vector<float> random_weights(std::uint64_t seed) {
  Random random(seed);
  std::vector<float> out(kWeights);
  for (float& value : out) value = random.normal() * 0.02f;
  return out;
}

std::vector<float> decoded(DType dtype, std::span<const std::byte> bytes) {
  auto values = dequantize(dtype, bytes);
  EXPECT_TRUE(values.ok());
  return values ? *values : std::vector<float>{};
}

std::vector<std::byte> shifted(const Case& one, std::span<const std::byte> row,
                               std::span<const float> shifts) {
  std::vector<std::byte> out(static_cast<std::size_t>(dtype_bytes(one.to, kWeights)));
  shift_minimums(one.from, one.to, row, shifts, out);
  return out;
}

class Shift : public testing::TestWithParam<Case> {};

TEST_P(Shift, MovesEveryWeightByTheShift) {
  const Case one = GetParam();
  ASSERT_TRUE(can_shift(one.from, one.to));
  const bool from_super = one.from == DType::kQ4_K || one.from == DType::kQ5_K;
  const bool to_super = one.to == DType::kQ4_K || one.to == DType::kQ5_K;
  Random random(7);
  for (std::uint64_t seed = 0; seed < 8; ++seed) {
    const auto bytes = quantize(one.from, random_weights(seed));
    ASSERT_TRUE(bytes.ok());
    std::vector<float> shifts(kWeights / kShiftBlock);
    for (float& value : shifts) value = random.normal() * 0.002f;
    const auto before = decoded(one.from, *bytes);
    const auto after = decoded(one.to, shifted(one, *bytes, shifts));
    double squares = 0;
    for (std::size_t i = 0; i < kWeights; ++i) {
      const double gap = double{after[i]} - double{before[i]} - double{shifts[i / kShiftBlock]};
      squares += gap * gap;
      // Half a unit of f16 of a minimum below 0.125, and of 15 or 31 times the scale.
      if (!to_super) {
        EXPECT_LE(std::abs(gap), from_super ? 1.2e-4 : 0.3e-4) << i;
      }
      // Half of a 63rd of the largest of eight minima.
      if (to_super) {
        EXPECT_LE(std::abs(gap), 0.08 / 63 / 2 * 1.1) << i;
      }
    }
    const double error = std::sqrt(squares / kWeights);
    EXPECT_LE(error, to_super ? 5e-4 : 0.4e-4);
  }
}

TEST_P(Shift, OfZeroKeepsEveryWeight) {
  const Case one = GetParam();
  const auto bytes = quantize(one.from, random_weights(3));
  const std::vector<float> zeros(kWeights / kShiftBlock);
  const auto out = shifted(one, *bytes, zeros);
  if (one.from == one.to) {
    EXPECT_EQ(out, *bytes);
  }
  const bool split = one.from != one.to && shifted_type(one.from) != one.to;
  if (!split) {
    EXPECT_EQ(decoded(one.from, *bytes), decoded(one.to, out));
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, Shift,
    testing::Values(Case{DType::kQ4_0, DType::kQ4_1}, Case{DType::kQ4_1, DType::kQ4_1},
                    Case{DType::kQ5_0, DType::kQ5_1}, Case{DType::kQ5_1, DType::kQ5_1},
                    Case{DType::kQ4_K, DType::kQ4_K}, Case{DType::kQ5_K, DType::kQ5_K},
                    Case{DType::kQ4_K, DType::kQ4_1}, Case{DType::kQ5_K, DType::kQ5_1}),
    [](const auto& info) {
      return std::string(dtype_name(info.param.from)) + "_" +
             std::string(dtype_name(info.param.to));
    });

TEST(Shift, TypesThatTakeIt) {
  EXPECT_EQ(shifted_type(DType::kQ4_0), DType::kQ4_1);
  EXPECT_EQ(shifted_type(DType::kQ4_K), DType::kQ4_K);
  for (const DType other :
       {DType::kQ8_0, DType::kQ6_K, DType::kQ2_K, DType::kF16, DType::kIQ4_NL}) {
    EXPECT_FALSE(shifted_type(other));
    EXPECT_FALSE(can_shift(other, DType::kQ4_1));
  }
}

// All eight minima above zero: the unit turns negative.
TEST(Shift, MinimaAboveZero) {
  const auto bytes = quantize(DType::kQ4_K, random_weights(1));
  const std::vector<float> shifts(kWeights / kShiftBlock, 0.5f);
  const Case one{DType::kQ4_K, DType::kQ4_K};
  const auto before = decoded(DType::kQ4_K, *bytes);
  const auto after = decoded(DType::kQ4_K, shifted(one, *bytes, shifts));
  for (std::size_t i = 0; i < kWeights; ++i) {
    ASSERT_NEAR(after[i], before[i] + 0.5f, 0.5 / 63 / 2 * 1.1) << i;
  }
}

}  // namespace
}  // namespace hone::quant

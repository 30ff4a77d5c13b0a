// Scales that are multiplied: codes stay, a factor of 0 changes no bit, and f16 is all that rounds.
// SPDX-License-Identifier: Apache-2.0
#include "quant/scales.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "base/random.h"
#include "quant/codec.h"

namespace hone::quant {
namespace {

constexpr std::size_t kWeights = 2048;

class Scales : public testing::TestWithParam<DType> {
 protected:
  Scales() {
    Random random(11);
    std::vector<float> weights(kWeights);
    for (float& value : weights) value = random.normal() * 0.02F + 0.003F;
    blocks = *quantize(GetParam(), weights);
    factors.resize(kWeights / block());
    for (float& value : factors) value = 0.2F * random.normal();
  }
  static std::size_t block() { return static_cast<std::size_t>(dtype_info(GetParam()).block); }
  std::vector<std::byte> times(std::span<const float> by, ScalePart part = ScalePart::kBoth) const {
    std::vector<std::byte> out(blocks.size());
    multiply_scales(GetParam(), part, blocks, by, out);
    return out;
  }
  static std::vector<float> decoded(std::span<const std::byte> bytes) {
    return *dequantize(GetParam(), bytes);
  }

  std::vector<std::byte> blocks;
  std::vector<float> factors;
};

TEST_P(Scales, ZeroChangesNoBitAndCodesStay) {
  EXPECT_EQ(times(std::vector<float>(factors.size(), 0.0F)), blocks);
  auto changed = times(factors);
  EXPECT_NE(changed, blocks);
  auto codes = blocks;
  clear_scales(GetParam(), codes);
  clear_scales(GetParam(), changed);
  EXPECT_EQ(changed, codes);
}

TEST_P(Scales, WeightsAreMultipliedWithinF16) {
  const auto before = decoded(blocks);
  const auto after = decoded(times(factors));
  for (std::size_t start = 0; start < kWeights; start += block()) {
    const double by = 1 + double{factors[start / block()]};
    double largest = 0;
    for (std::size_t i = start; i < start + block(); ++i) {
      largest = std::max(largest, std::abs(double{before[i]}));
    }
    for (std::size_t i = start; i < start + block(); ++i) {
      // Scale and minimum are each off by half an ulp of f16, and may be of opposite signs: their
      // parts of a weight are at most twice the block's range in formats that begin at 0. Of K
      // formats the f16 may be subnormal (half a step is 2^-25) and is multiplied by up to 32 *
      // 127.
      const double subnormal = block() == 256 ? 0x1p-25 * 32 * 127 : 0;
      EXPECT_NEAR(after[i], by * before[i], 4 * 0x1p-11 * by * largest + subnormal) << i;
    }
  }
}

TEST_P(Scales, PartsAddUp) {
  const auto before = decoded(blocks);
  const auto both = decoded(times(factors));
  const auto scale = decoded(times(factors, ScalePart::kScale));
  const auto minimum = decoded(times(factors, ScalePart::kMinimum));
  std::vector<float> minimums(factors.size());
  read_minimums(GetParam(), blocks, minimums);
  for (std::size_t i = 0; i < kWeights; ++i) {
    EXPECT_NEAR(double{scale[i]} + double{minimum[i]} - double{before[i]}, both[i], 1e-6) << i;
    if (block() == 32) {
      const double m = minimums[i / 32];
      EXPECT_NEAR(double{minimum[i]} - double{before[i]}, double{factors[i / 32]} * m,
                  0x1p-11 * 2 * std::abs(m) + 1e-7)
          << i;
    }
  }
}

TEST(ScalePlaces, PlainNumbersHaveNone) { EXPECT_FALSE(scale_places(DType::kF32)); }

INSTANTIATE_TEST_SUITE_P(All, Scales,
                         testing::Values(DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1,
                                         DType::kQ8_0, DType::kIQ4_NL, DType::kQ2_K, DType::kQ3_K,
                                         DType::kQ4_K, DType::kQ5_K, DType::kQ6_K),
                         [](const auto& info) { return std::string(dtype_name(info.param)); });

}  // namespace
}  // namespace hone::quant

// The battery that every line of list.inc gets.
// SPDX-License-Identifier: Apache-2.0
#include "quant/codec.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "base/random.h"

namespace hone::quant {
namespace {

constexpr std::size_t kWeights = 2048;  // whole blocks of every format

class CodecTest : public ::testing::TestWithParam<Codec> {
 protected:
  DType dtype() const { return GetParam().dtype; }
  std::size_t block() const { return static_cast<std::size_t>(dtype_info(dtype()).block); }

  std::vector<std::byte> encode(std::span<const float> weights,
                                std::span<const float> importance = {}) const {
    auto blocks = quantize(dtype(), weights, importance);
    EXPECT_TRUE(blocks.ok());
    return std::move(*blocks);
  }
  std::vector<float> round_trip(std::span<const float> weights,
                                std::span<const float> importance = {}) const {
    auto decoded = dequantize(dtype(), encode(weights, importance));
    EXPECT_TRUE(decoded.ok());
    return std::move(*decoded);
  }
  // Error that rounding alone may make, as a share of the block's largest magnitude. A format with
  // b bits splits [-largest, largest] into 2^b steps; half a step for rounding, and once more where
  // the longer side of the range has one value more than the shorter. Plain floats: half an ulp.
  float bound() const {
    if (dtype() == DType::kF32) return 0.0f;
    if (dtype() == DType::kF16) return 0x1p-11f;
    if (dtype() == DType::kBF16) return 0x1p-8f;
    if (dtype() == DType::kIQ4_NL) return 0x1p-3f;
    const int bits = dtype_name(dtype())[1] - '0';
    return std::ldexp(1.0f, 1 - bits);
  }
};

std::vector<float> normal_weights(std::uint64_t seed, float scale) {
  Random random(seed);
  std::vector<float> weights(kWeights);
  for (float& weight : weights) weight = scale * random.normal();
  return weights;
}

double squared_error(std::span<const float> a, std::span<const float> b,
                     std::span<const float> importance = {}) {
  double total = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double difference = static_cast<double>(a[i]) - b[i];
    total += difference * difference * (importance.empty() ? 1.0 : importance[i]);
  }
  return total;
}

TEST_P(CodecTest, ErrorStaysWithinTheFormatsSteps) {
  for (const float scale : {1e-2f, 1.0f, 300.0f}) {
    const std::vector<float> weights = normal_weights(1, scale);
    const std::vector<float> decoded = round_trip(weights);
    for (std::size_t b = 0; b < kWeights; b += block()) {
      float largest = 0.0f;
      for (std::size_t i = b; i < b + block(); ++i) {
        largest = std::max(largest, std::fabs(weights[i]));
      }
      const double error = std::sqrt(squared_error(std::span(weights).subspan(b, block()),
                                                   std::span(decoded).subspan(b, block())) /
                                     static_cast<double>(block()));
      // Below f16's normal numbers its steps are 2^-24.
      EXPECT_LE(error, bound() * largest + (dtype() == DType::kF16 ? 0x1p-25f : 0.0f))
          << "block at " << b << ", scale " << scale;
    }
  }
}

TEST_P(CodecTest, ZerosStayZero) {
  const std::vector<float> weights(kWeights, 0.0f);
  for (const float value : round_trip(weights)) EXPECT_EQ(value, 0.0f);
}

TEST_P(CodecTest, ConstantsSurvive) {
  for (const float constant : {0.37f, -0.37f, 12.0f}) {
    const std::vector<float> weights(kWeights, constant);
    // bf16 keeps 8 bits; the others round only their f16 scales, by 2^-11 each.
    const float share = dtype() == DType::kBF16 ? 0x1p-8f : 0x1p-9f;
    for (const float value : round_trip(weights)) {
      ASSERT_NEAR(value, constant, std::fabs(constant) * share);
    }
  }
}

TEST_P(CodecTest, OneOutlierIsKeptAndHarmsOnlyItsBlock) {
  std::vector<float> weights = normal_weights(2, 0.01f);
  const std::vector<float> before = round_trip(weights);
  weights[5] = -10.0f;
  const std::vector<float> after = round_trip(weights);
  EXPECT_NEAR(after[5], -10.0f, 10.0f * bound());
  for (std::size_t i = block(); i < kWeights; ++i) {
    ASSERT_TRUE(i == 5 || after[i] == before[i]) << i;
  }
}

TEST_P(CodecTest, TinyWeightsRoundToSomethingTiny) {
  for (const float scale : {1e-42f, 1e-30f, 1e-12f, 1e-8f}) {
    const std::vector<float> weights = normal_weights(3, scale);
    // Nothing may become larger than the smallest f16 scale allows: a few of its steps.
    for (const float value : round_trip(weights)) {
      ASSERT_TRUE(std::isfinite(value));
      ASSERT_LE(std::fabs(value), 8.0f * scale + 0x1p-22f);
    }
  }
}

TEST_P(CodecTest, HugeWeightsSaturate) {
  for (const float scale : {1e5f, 1e20f, 1e37f}) {
    std::vector<float> weights = normal_weights(4, scale);
    weights[9] = std::numeric_limits<float>::max();
    weights[300] = std::numeric_limits<float>::lowest();
    const std::vector<float> decoded = round_trip(weights);
    for (std::size_t i = 0; i < kWeights; ++i) ASSERT_TRUE(std::isfinite(decoded[i])) << i;
    EXPECT_GT(decoded[9], 0.0f);
    EXPECT_LT(decoded[300], 0.0f);
  }
}

TEST_P(CodecTest, NotANumberDoesNotSpread) {
  std::vector<float> weights = normal_weights(5, 1.0f);
  weights[17] = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> decoded = round_trip(weights);
  for (std::size_t i = 0; i < kWeights; ++i) {
    ASSERT_TRUE(i == 17 || std::isfinite(decoded[i])) << i;
  }
}

TEST_P(CodecTest, EncodingIsTheSameAgainAndInPieces) {
  const std::vector<float> weights = normal_weights(6, 0.05f);
  const std::vector<std::byte> whole = encode(weights);
  EXPECT_EQ(whole, encode(weights));
  std::vector<std::byte> pieces;
  for (std::size_t b = 0; b < kWeights; b += block()) {
    const std::vector<std::byte> piece = encode(std::span(weights).subspan(b, block()));
    pieces.insert(pieces.end(), piece.begin(), piece.end());
  }
  EXPECT_EQ(whole, pieces);
}

TEST_P(CodecTest, ImportanceLowersTheErrorThatItWeighs) {
  const std::vector<float> weights = normal_weights(7, 0.05f);
  Random random(8);
  std::vector<float> importance(kWeights);
  for (float& factor : importance) factor = std::exp(1.5f * random.normal());
  const double without = squared_error(weights, round_trip(weights), importance);
  const double with = squared_error(weights, round_trip(weights, importance), importance);
  if (!is_block_quantized(dtype())) {
    EXPECT_EQ(with, without);
  } else {
    EXPECT_LT(with, without);
  }
}

TEST_P(CodecTest, UselessImportanceCountsAsNone) {
  const std::vector<float> weights = normal_weights(9, 0.05f);
  const std::vector<std::byte> plain = encode(weights);
  EXPECT_EQ(encode(weights, std::vector<float>(kWeights, 0.0f)), plain);
  EXPECT_EQ(encode(weights, std::vector<float>(kWeights, 4.0f)), plain);
}

TEST_P(CodecTest, SizesAreChecked) {
  if (block() > 1) {
    const auto short_row = quantize(dtype(), std::vector<float>(block() - 1));
    ASSERT_FALSE(short_row.ok());
    EXPECT_EQ(short_row.error().code, ErrorCode::kInvalidArgument);
  }
  const auto wrong_factors =
      quantize(dtype(), std::vector<float>(block()), std::vector<float>(block() + 1));
  ASSERT_FALSE(wrong_factors.ok());
  const auto bytes = static_cast<std::size_t>(dtype_info(dtype()).bytes);
  EXPECT_FALSE(dequantize(dtype(), std::vector<std::byte>(bytes + 1)).ok());
  EXPECT_TRUE(dequantize(dtype(), {}).ok());
  EXPECT_TRUE(quantize(dtype(), {}).ok());
}

INSTANTIATE_TEST_SUITE_P(AllFormats, CodecTest,
                         ::testing::ValuesIn(codecs().begin(), codecs().end()),
                         [](const auto& info) {
                           return std::string(dtype_name(info.param.dtype));
                         });

TEST(Codecs, EveryBlockFormatHasOne) {
  for (const DTypeInfo& info : all_dtypes()) {
    EXPECT_TRUE(info.block == 1 || find_codec(info.dtype) != nullptr) << info.name;
  }
  const auto refused = dequantize(DType::kI32, std::vector<std::byte>(4));
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kUnsupported);
  EXPECT_NE(refused.error().text().find("q4_k"), std::string::npos);
}

}  // namespace
}  // namespace hone::quant

// Half floats against their definition, random numbers against published vectors, element types.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>
#include <string>

#include "base/dtype.h"
#include "base/half.h"
#include "base/random.h"

namespace hone {
namespace {

// f16 by its definition in IEEE 754, in double arithmetic, which is exact here.
double f16_by_definition(std::uint32_t bits) {
  const int exponent = static_cast<int>(bits >> 10 & 31);
  const double mantissa = bits & 1023;
  const double sign = (bits & 0x8000u) != 0 ? -1 : 1;
  if (exponent == 0) return sign * std::ldexp(mantissa, -24);
  return sign * std::ldexp(1024 + mantissa, exponent - 25);
}

TEST(Half, EveryF16DecodesAndComesBack) {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto half = static_cast<std::uint16_t>(bits);
    const float value = f16_to_f32(half);
    if ((bits >> 10 & 31) == 31) {
      const bool infinite = (bits & 1023) == 0;
      ASSERT_EQ(std::isinf(value), infinite) << bits;
      ASSERT_EQ(std::isnan(value), !infinite) << bits;
    } else {
      ASSERT_EQ(value, f16_by_definition(bits)) << bits;
      ASSERT_EQ(std::signbit(value), (bits & 0x8000u) != 0) << bits;
    }
    if (!std::isnan(value)) {
      ASSERT_EQ(f32_to_f16(value), half) << bits;
    }
  }
  EXPECT_TRUE(std::isnan(f16_to_f32(f32_to_f16(std::numeric_limits<float>::quiet_NaN()))));
}

// Between two neighbours: the middle goes to the even one, a touch off the middle to the nearer
// one.
TEST(Half, F16RoundsToNearestTiesToEven) {
  for (std::uint32_t bits = 0; bits < 0x7bff; ++bits) {
    const float low = f16_to_f32(static_cast<std::uint16_t>(bits));
    const float high = f16_to_f32(static_cast<std::uint16_t>(bits + 1));
    const float middle = low + (high - low) / 2;  // exact in f32
    const std::uint32_t even = bits % 2 == 0 ? bits : bits + 1;
    ASSERT_EQ(f32_to_f16(middle), even) << bits;
    ASSERT_EQ(f32_to_f16(std::nextafter(middle, -1.0f)), bits) << bits;
    ASSERT_EQ(f32_to_f16(std::nextafter(middle, 1e9f)), bits + 1) << bits;
    ASSERT_EQ(f32_to_f16(-middle), even | 0x8000u) << bits;
  }
  EXPECT_EQ(f32_to_f16(65519.0f), 0x7bff);  // the largest finite one is 65504
  EXPECT_EQ(f32_to_f16(65520.0f), 0x7c00);
  EXPECT_EQ(f32_to_f16(1e-30f), 0);
}

TEST(Half, Bf16IsTheUpperHalfRounded) {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto half = static_cast<std::uint16_t>(bits);
    const float value = bf16_to_f32(half);
    ASSERT_EQ(std::bit_cast<std::uint32_t>(value), bits << 16);
    if (!std::isnan(value)) {
      ASSERT_EQ(f32_to_bf16(value), half);
    }
  }
  EXPECT_EQ(f32_to_bf16(std::bit_cast<float>(0x3f808000u)), 0x3f80);  // tie, even below
  EXPECT_EQ(f32_to_bf16(std::bit_cast<float>(0x3f818000u)), 0x3f82);  // tie, even above
  EXPECT_EQ(f32_to_bf16(std::bit_cast<float>(0x3f808001u)), 0x3f81);
  EXPECT_EQ(f32_to_bf16(std::numeric_limits<float>::max()), 0x7f80);
  EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(std::bit_cast<float>(0x7f800001u)))));
}

// Known answers of Random123 (Salmon et al., file kat_vectors, philox4x32 10 rounds).
TEST(Random, PhiloxGivesThePublishedVectors) {
  using Block = std::array<std::uint32_t, 4>;
  EXPECT_EQ(philox({0, 0, 0, 0}, 0), (Block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  constexpr std::uint32_t kOnes = 0xffffffff;
  EXPECT_EQ(philox({kOnes, kOnes, kOnes, kOnes}, ~std::uint64_t{0}),
            (Block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, 0x299f31d0a4093822),
            (Block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Random, StreamsAreReplayableAndDistinct) {
  Random first(7, 1);
  Random again(7, 1);
  Random other(7, 2);
  int same = 0;
  for (int i = 0; i < 1000; ++i) {
    const std::uint32_t value = first.next_u32();
    ASSERT_EQ(value, again.next_u32());
    same += value == other.next_u32() ? 1 : 0;
  }
  EXPECT_LE(same, 1);
}

TEST(Random, MomentsAndBounds) {
  Random random(1);
  constexpr int kCount = 100'000;
  double sum = 0;
  double squares = 0;
  for (int i = 0; i < kCount; ++i) {
    const float uniform = random.uniform();
    ASSERT_TRUE(uniform >= 0.0f && uniform < 1.0f);
    ASSERT_LT(random.below(3), 3U);
    const float normal = random.normal();
    ASSERT_TRUE(std::isfinite(normal));
    sum += normal;
    squares += double{normal} * normal;
  }
  // Five standard errors: of the mean 1/sqrt(n), of the variance sqrt(2/n).
  EXPECT_NEAR(sum / kCount, 0, 5 / std::sqrt(kCount));
  EXPECT_NEAR(squares / kCount, 1, 5 * std::sqrt(2.0 / kCount));
}

TEST(DType, NamesAndNumbersAreUniqueAndFound) {
  std::set<std::string> names;
  std::set<int> numbers;
  for (const DTypeInfo& info : all_dtypes()) {
    EXPECT_TRUE(names.emplace(info.name).second) << info.name;
    EXPECT_EQ(&dtype_info(info.dtype), &info);
    EXPECT_EQ(dtype_from_name(info.name), info.dtype);
    if (info.gguf_type < 0) continue;
    EXPECT_TRUE(numbers.insert(info.gguf_type).second) << info.name;
    EXPECT_EQ(dtype_from_gguf(static_cast<std::uint32_t>(info.gguf_type)), info.dtype);
  }
  EXPECT_EQ(dtype_from_name("Q4_K"), DType::kQ4_K);
  EXPECT_EQ(dtype_from_name("q4"), std::nullopt);
  EXPECT_EQ(dtype_from_gguf(0xffffffff), std::nullopt);  // -1 is no number of a file
  EXPECT_EQ(dtype_bytes(DType::kQ4_1, 64), 40);
  EXPECT_EQ(dtype_bytes(DType::kF16, 3), 6);
}

}  // namespace
}  // namespace hone

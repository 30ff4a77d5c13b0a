// Quantized rows: the definition, the same bits on every instruction set, the fused norm, guards.
// SPDX-License-Identifier: Apache-2.0
#include "kernels/battery.h"

namespace hone::kernels {
namespace {

struct Quantized {
  explicit Quantized(std::size_t size, std::size_t misaligned)
      : codes((size + 31) / 32 * 32, misaligned),
        scales((size + 31) / 32, misaligned),
        sums((size + 31) / 32, 1) {}
  bool intact() const { return codes.intact() && scales.intact() && sums.intact(); }

  Guarded<std::int8_t> codes;
  Row scales, sums;
};

// nearbyint rounds ties to even in the default mode.
void expect_definition(const Row& x, Quantized& q) {
  for (std::size_t block = 0; block < q.scales.size(); ++block) {
    float largest = 0.0f;
    for (std::size_t i = 32 * block; i < x.size() && i < 32 * (block + 1); ++i) {
      largest = std::max(largest, std::abs(x[i]));
    }
    ASSERT_EQ(q.scales[block], largest / 127.0f);
    int total = 0;
    for (std::size_t i = 32 * block; i < 32 * (block + 1); ++i) {
      const float value = i < x.size() ? x[i] : 0.0f;
      const float expected = largest > 0.0f ? std::nearbyint(value * (127.0f / largest)) : 0.0f;
      ASSERT_EQ(static_cast<float>(q.codes[i]), expected) << "code " << i;
      total += q.codes[i];
      // Half a step, and a rounding of the quotient on either side.
      ASSERT_LE(std::abs(q.codes[i] * q.scales[block] - value), 0.5001f * q.scales[block]);
    }
    ASSERT_EQ(q.sums[block], q.scales[block] * static_cast<float>(total));
  }
}

TEST(QuantizeRow, FollowsItsDefinitionOnEveryInstructionSet) {
  for_each_case([](const KernelTable& table, std::size_t size, std::size_t misaligned) {
    const Row x = random_row(size, -5.0f, 5.0f, 16, misaligned);
    Quantized q(size, misaligned);
    table.quantize_row(x, q.codes, q.scales, q.sums);
    expect_definition(x, q);
    ASSERT_TRUE(q.intact());
  });
}

TEST(QuantizeRow, TiesGoToEven) {
  for (const KernelTable* table : available_kernels()) {
    Row x(32);
    Quantized q(32, 0);
    for (std::size_t i = 0; i < 32; ++i) x[i] = 0.5f * (static_cast<float>(i) - 15.0f);
    x[31] = 127.0f;  // a step of exactly 1
    x[30] = 0.49999997f;
    table->quantize_row(x, q.codes, q.scales, q.sums);
    EXPECT_EQ(q.codes[0], -8);  // -7.5
    EXPECT_EQ(q.codes[2], -6);  // -6.5
    EXPECT_EQ(q.codes[14], 0);  // -0.5
    EXPECT_EQ(q.codes[16], 0);  // 0.5
    EXPECT_EQ(q.codes[18], 2);  // 1.5
    EXPECT_EQ(q.codes[30], 0);
    EXPECT_EQ(q.codes[31], 127);
  }
}

TEST(QuantizeRow, ZeroAndTinyBlocksAreZero) {
  for (const KernelTable* table : available_kernels()) {
    for (const float value : {0.0f, 1e-38f, 1e-44f}) {
      Row x(40);
      Quantized q(40, 1);
      for (float& element : x.span()) element = value;
      table->quantize_row(x, q.codes, q.scales, q.sums);
      for (const std::int8_t code : q.codes.span()) EXPECT_EQ(code, 0);
      for (const float scale : q.scales.span()) EXPECT_EQ(scale, 0.0f);
      for (const float sum : q.sums.span()) EXPECT_EQ(sum, 0.0f);
    }
  }
}

TEST(NormQuantizeRow, SameBitsAsNormThenQuantize) {
  for_each_case([](const KernelTable& table, std::size_t size, std::size_t misaligned) {
    const Row x = random_row(size, -5.0f, 5.0f, 17, misaligned);
    const Row weight = random_row(size, 0.5f, 2.0f, 18, 1);
    Row normed(size, misaligned);
    Quantized apart(size, misaligned), fused(size, misaligned);
    table.rms_norm(x, weight, 1e-6f, normed);
    table.quantize_row(normed, apart.codes, apart.scales, apart.sums);
    table.norm_quantize_row(x, weight, 1e-6f, fused.codes, fused.scales, fused.sums);
    for (std::size_t i = 0; i < fused.codes.size(); ++i) ASSERT_EQ(fused.codes[i], apart.codes[i]);
    for (std::size_t i = 0; i < fused.scales.size(); ++i) {
      ASSERT_EQ(fused.scales[i], apart.scales[i]);
      ASSERT_EQ(fused.sums[i], apart.sums[i]);
    }
    ASSERT_TRUE(fused.intact());
  });
}

}  // namespace
}  // namespace hone::kernels

// f16 and bf16 rows against the software conversions, over every half and a sweep of floats.
// SPDX-License-Identifier: Apache-2.0
#include <bit>

#include "base/half.h"
#include "kernels/battery.h"

namespace hone::kernels {
namespace {

bool is_nan_f16(std::uint16_t half) { return (half & 0x7fffu) > 0x7c00u; }

// All exponents and signs, mantissas near the ties of both formats.
std::vector<float> sweep() {
  std::vector<float> values;
  for (std::uint32_t high = 0; high < 0x10000u; high += 37) {
    for (const std::uint32_t low :
         {0x0000u, 0x0fffu, 0x1000u, 0x1001u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
      values.push_back(std::bit_cast<float>(high << 16 | low));
    }
  }
  for (int exponent = -28; exponent < 18; ++exponent) {
    values.push_back(std::ldexp(1.0f, exponent));
    values.push_back(-std::ldexp(1.5f, exponent));
  }
  return values;
}

TEST(Convert, NarrowingMatchesSoftware) {
  const std::vector<float> values = sweep();
  for (const KernelTable* table : available_kernels()) {
    SCOPED_TRACE(table->isa);
    Guarded<std::uint16_t> f16(values.size(), 1), bf16(values.size(), 1);
    table->f32_to_f16_row(values, f16);
    table->f32_to_bf16_row(values, bf16);
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (std::isnan(values[i])) {
        ASSERT_TRUE(is_nan_f16(f16[i]));
      } else {
        ASSERT_EQ(f16[i], f32_to_f16(values[i])) << values[i];
      }
      ASSERT_EQ(bf16[i], f32_to_bf16(values[i])) << values[i];
    }
    ASSERT_TRUE(f16.intact() && bf16.intact());
  }
}

TEST(Convert, WideningMatchesSoftwareForEveryHalf) {
  std::vector<std::uint16_t> halves(0x10000);
  for (std::size_t i = 0; i < halves.size(); ++i) halves[i] = static_cast<std::uint16_t>(i);
  for (const KernelTable* table : available_kernels()) {
    SCOPED_TRACE(table->isa);
    Row from_f16(halves.size()), from_bf16(halves.size());
    table->f16_to_f32_row(halves, from_f16);
    table->bf16_to_f32_row(halves, from_bf16);
    for (std::size_t i = 0; i < halves.size(); ++i) {
      if (is_nan_f16(halves[i])) {
        ASSERT_TRUE(std::isnan(from_f16[i]));
      } else {
        ASSERT_EQ(std::bit_cast<std::uint32_t>(from_f16[i]),
                  std::bit_cast<std::uint32_t>(f16_to_f32(halves[i])));
      }
      ASSERT_EQ(std::bit_cast<std::uint32_t>(from_bf16[i]),
                std::bit_cast<std::uint32_t>(bf16_to_f32(halves[i])));
    }
  }
}

TEST(Convert, OddSizesAndGuards) {
  for_each_case([](const KernelTable& table, std::size_t size, std::size_t misaligned) {
    const Row x = random_row(size, -70000.0f, 70000.0f, 19, misaligned);
    Guarded<std::uint16_t> f16(size, misaligned), bf16(size, misaligned);
    Row back(size, misaligned);
    table.f32_to_f16_row(x, f16);
    table.f32_to_bf16_row(x, bf16);
    table.bf16_to_f32_row(bf16, back);
    for (std::size_t i = 0; i < size; ++i) {
      ASSERT_EQ(f16[i], f32_to_f16(x[i]));
      ASSERT_EQ(back[i], bf16_to_f32(f32_to_bf16(x[i])));
    }
    table.f16_to_f32_row(f16, back);
    for (std::size_t i = 0; i < size; ++i) ASSERT_EQ(back[i], f16_to_f32(f16[i]));
    ASSERT_TRUE(f16.intact() && bf16.intact() && back.intact());
  });
}

}  // namespace
}  // namespace hone::kernels

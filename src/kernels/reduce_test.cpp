// Largest element and its place: first of equals, NaN never, every position.
// SPDX-License-Identifier: Apache-2.0
#include "kernels/battery.h"

namespace hone::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST(Reduce, MatchesPlainLoop) {
  for_each_case([](const KernelTable& table, std::size_t size, std::size_t misaligned) {
    for (const float low : {-9.0f, -100.0f}) {  // with low = -100 all are negative
      const Row x = random_row(size, low, low == -9.0f ? 9.0f : -50.0f, 20, misaligned);
      float best = -kInfinity;
      std::size_t index = 0;
      for (std::size_t i = 0; i < size; ++i) {
        if (x[i] > best) {
          best = x[i];
          index = i;
        }
      }
      ASSERT_EQ(table.max_row(x), best);
      ASSERT_EQ(table.argmax_row(x), index);
    }
  });
}

TEST(Reduce, FindsEveryPositionAndTheFirstOfEquals) {
  for (const KernelTable* table : available_kernels()) {
    SCOPED_TRACE(table->isa);
    Row x(77, 3);
    for (std::size_t first = 0; first < x.size(); ++first) {
      for (float& value : x.span()) value = -1.0f;
      x[first] = 5.0f;
      ASSERT_EQ(table->argmax_row(x), first);
      x[x.size() - 1] = 5.0f;
      x[(first + x.size()) / 2] = 5.0f;
      ASSERT_EQ(table->argmax_row(x), first);
    }
  }
}

TEST(Reduce, NaNAndInfinities) {
  for (const KernelTable* table : available_kernels()) {
    SCOPED_TRACE(table->isa);
    Row x(40, 0);
    for (float& value : x.span()) value = -kInfinity;
    EXPECT_EQ(table->max_row(x), -kInfinity);
    EXPECT_EQ(table->argmax_row(x), 0u);
    x[0] = std::numeric_limits<float>::quiet_NaN();
    x[39] = -3.0f;
    EXPECT_EQ(table->max_row(x), -3.0f);
    EXPECT_EQ(table->argmax_row(x), 39u);
    x[17] = kInfinity;
    EXPECT_EQ(table->max_row(x), kInfinity);
    EXPECT_EQ(table->argmax_row(x), 17u);
  }
}

}  // namespace
}  // namespace hone::kernels

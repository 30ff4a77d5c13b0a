// Elementwise kernels against the same operation in plain C++: bit for bit, but for the fused one.
// SPDX-License-Identifier: Apache-2.0
#include "kernels/battery.h"

namespace hone::kernels {
namespace {

TEST(Elementwise, AddMultiplyScaleAreExact) {
  for_each_case([](const KernelTable& table, std::size_t size, std::size_t misaligned) {
    const Row a = random_row(size, -2.0f, 2.0f, 1, misaligned);
    const Row b = random_row(size, -2.0f, 2.0f, 2, 1);
    Row sum(size, misaligned), product(size, 2), multiple(size, misaligned);
    table.add(a, b, sum);
    table.multiply(a, b, product);
    table.scale(a, 0.3f, multiple);
    for (std::size_t i = 0; i < size; ++i) {
      ASSERT_EQ(sum[i], a[i] + b[i]);
      ASSERT_EQ(product[i], a[i] * b[i]);
      ASSERT_EQ(multiple[i], a[i] * 0.3f);
    }
    ASSERT_TRUE(sum.intact() && product.intact() && multiple.intact());
  });
}

TEST(Elementwise, AddInPlace) {
  for_each_case([](const KernelTable& table, std::size_t size, std::size_t misaligned) {
    const Row before = random_row(size, -2.0f, 2.0f, 1, misaligned);
    Row a = random_row(size, -2.0f, 2.0f, 1, misaligned);
    table.add(a, a, a);
    for (std::size_t i = 0; i < size; ++i) ASSERT_EQ(a[i], 2.0f * before[i]);
    ASSERT_TRUE(a.intact());
  });
}

TEST(Elementwise, AxpyWithinOneRoundingOfTheProduct) {
  for_each_case([](const KernelTable& table, std::size_t size, std::size_t misaligned) {
    const Row x = random_row(size, -2.0f, 2.0f, 3, misaligned);
    const Row before = random_row(size, -2.0f, 2.0f, 4, misaligned);
    Row y = random_row(size, -2.0f, 2.0f, 4, misaligned);
    table.axpy(0.7f, x, y);
    for (std::size_t i = 0; i < size; ++i) {
      const double product = static_cast<double>(0.7f) * x[i];
      expect_close(y[i], product + before[i], kEpsilon, kEpsilon * std::abs(product), i);
    }
    ASSERT_TRUE(y.intact());
  });
}

}  // namespace
}  // namespace hone::kernels

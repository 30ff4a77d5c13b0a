// The fast transform against the matrix, its inverse, and the same bits on every instruction set.
// SPDX-License-Identifier: Apache-2.0
#include "base/hadamard.h"

#include <algorithm>
#include <vector>

#include "kernels/battery.h"

namespace hone::kernels {
namespace {

TEST(HadamardKernel, EqualsTheMatrix) {
  constexpr std::int64_t kBlocks[] = {1, 2, 4, 8, 16, 32, 64, 12, 24, 96, 192, 20, 40, 160, 1024};
  for (const std::int64_t block : kBlocks) {
    const auto size = static_cast<std::size_t>(2 * block);
    const Row x = random_row(size, -1.0F, 1.0F, 7, 3);
    std::vector<float> first;
    for (const bool transpose : {false, true}) {
      for (const KernelTable* table : available_kernels()) {
        SCOPED_TRACE(std::string(table->isa) + ", block " + std::to_string(block));
        Row out(size, 1);
        table->hadamard_row(x, block, transpose, out);
        ASSERT_TRUE(out.intact());
        for (std::int64_t b = 0; b < 2; ++b) {
          for (std::int64_t j = 0; j < block; ++j) {
            double sum = 0;
            for (std::int64_t i = 0; i < block; ++i) {
              sum += static_cast<double>(x[static_cast<std::size_t>(b * block + i)]) *
                     (transpose ? hadamard_element(block, j, i) : hadamard_element(block, i, j));
            }
            // Sums in a tree of depth log2 (12 or 20 terms in a chain) of up to `block` ones, then
            // one product: at most 32 half units in the last place of what a sum may be.
            const double expected = sum / std::sqrt(static_cast<double>(block));
            EXPECT_NEAR(out[static_cast<std::size_t>(b * block + j)], expected,
                        16 * kEpsilon * std::sqrt(static_cast<double>(block)));
          }
        }
        const std::vector<float> bits(out.span().begin(), out.span().end());
        if (table == available_kernels().front()) first = bits;
        EXPECT_EQ(bits, first) << "other bits than " << available_kernels().front()->isa;
        // In place, and back.
        table->hadamard_row(out, block, !transpose, out);
        for (std::size_t i = 0; i < size; ++i) {
          EXPECT_NEAR(out[i], x[i], 64 * kEpsilon * std::sqrt(static_cast<double>(block)));
        }
      }
    }
  }
}

TEST(Butterfly, SumAndDifference) {
  for_each_case([](const KernelTable& table, std::size_t size, std::size_t misaligned) {
    const Row x = random_row(size, -1.0F, 1.0F, 1, misaligned);
    const Row y = random_row(size, -1.0F, 1.0F, 2, misaligned);
    Row a(size, misaligned), b(size, misaligned);
    std::copy(x.view().begin(), x.view().end(), a.span().begin());
    std::copy(y.view().begin(), y.view().end(), b.span().begin());
    table.butterfly(a, b);
    for (std::size_t i = 0; i < size; ++i) {
      ASSERT_EQ(a[i], x[i] + y[i]);
      ASSERT_EQ(b[i], x[i] - y[i]);
    }
    ASSERT_TRUE(a.intact() && b.intact());
  });
}

}  // namespace
}  // namespace hone::kernels

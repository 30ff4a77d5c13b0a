// Products of integers against a plain loop, on every instruction set: equal, not near.
// SPDX-License-Identifier: Apache-2.0
#include "kernels/integer_product.h"

#include <gtest/gtest.h>

#include <vector>

#include "base/random.h"
#include "kernels/registry.h"

namespace hone::kernels {
namespace {

TEST(IntegerProduct, EqualsALoop) {
  Random random(3);
  const auto value = [&] {
    return static_cast<std::int16_t>(std::int32_t(random.below(511)) - 255);
  };
  for (const std::size_t rows : {1, 7, 8, 19}) {
    for (const std::size_t outputs : {1, 6, 8, 21}) {
      for (const std::size_t depth : {1, 2, 25, 150}) {
        const std::size_t pairs = integer_pairs(depth);
        std::vector<std::int16_t> x(rows * 2 * pairs), w(outputs * 2 * pairs);
        std::vector<std::int32_t> packed(integer_words(outputs, depth));
        for (std::size_t row = 0; row < rows; ++row) {
          for (std::size_t i = 0; i < depth; ++i) x[row * 2 * pairs + i] = value();
        }
        for (std::size_t row = 0; row < outputs; ++row) {
          for (std::size_t i = 0; i < depth; ++i) w[row * 2 * pairs + i] = value();
          for (std::size_t p = 0; p < pairs; ++p) {
            const std::size_t at = row * 2 * pairs + 2 * p;
            packed[integer_place(row, p, pairs)] = integer_pair(w[at], w[at + 1]);
          }
        }
        for (const KernelTable* table : available_kernels()) {
          std::vector<std::int32_t> out(rows * outputs + 1, 77);
          table->integer_product({x.data(), packed.data(), rows, outputs, pairs, out.data()});
          EXPECT_EQ(out.back(), 77) << "written beyond the result";
          for (std::size_t n = 0; n < rows; ++n) {
            for (std::size_t r = 0; r < outputs; ++r) {
              std::int32_t sum = 0;
              for (std::size_t i = 0; i < depth; ++i) {
                sum += x[n * 2 * pairs + i] * w[r * 2 * pairs + i];
              }
              ASSERT_EQ(out[n * outputs + r], sum) << table->isa << " " << n << " " << r;
            }
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace hone::kernels

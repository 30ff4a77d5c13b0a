// Hadamard matrices: orthogonal rows, and the sizes that models have.
// SPDX-License-Identifier: Apache-2.0
#include "base/hadamard.h"

#include <gtest/gtest.h>

namespace hone {
namespace {

TEST(Hadamard, RowsAreOrthogonal) {
  for (const std::int64_t size : {1, 2, 8, 12, 20, 24, 80}) {
    for (std::int64_t a = 0; a < size; ++a) {
      for (std::int64_t b = 0; b < size; ++b) {
        std::int64_t dot = 0;
        for (std::int64_t i = 0; i < size; ++i) {
          dot += hadamard_element(size, a, i) * hadamard_element(size, b, i);
        }
        EXPECT_EQ(dot, a == b ? size : 0) << size << ": rows " << a << " and " << b;
      }
    }
  }
}

TEST(Hadamard, Sizes) {
  EXPECT_EQ(hadamard_core(1), 1);
  EXPECT_EQ(hadamard_core(192), 12);
  EXPECT_EQ(hadamard_core(640), 20);
  EXPECT_EQ(hadamard_core(36), 0);
  EXPECT_EQ(hadamard_core(0), 0);
  EXPECT_EQ(hadamard_block(576), 192);
  EXPECT_EQ(hadamard_block(1536), 1536);
  EXPECT_EQ(hadamard_block(640), 640);
  EXPECT_EQ(hadamard_block(2048), 2048);
  EXPECT_EQ(hadamard_block(67), 1);
  EXPECT_EQ(hadamard_token_block(0, 100, 64), 64);
  EXPECT_EQ(hadamard_token_block(64, 100, 64), 32);
  EXPECT_EQ(hadamard_token_block(96, 100, 64), 4);
}

}  // namespace
}  // namespace hone

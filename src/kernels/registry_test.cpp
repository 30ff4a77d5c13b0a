// The tables are complete, found by name, and the best is chosen.
// SPDX-License-Identifier: Apache-2.0
#include "kernels/registry.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

namespace hone::kernels {
namespace {

TEST(Registry, ScalarRunsEverywhere) {
  ASSERT_FALSE(available_kernels().empty());
  EXPECT_STREQ(available_kernels().front()->isa, "scalar");
}

TEST(Registry, EveryTableIsComplete) {
  for (const KernelTable* table : available_kernels()) {
    SCOPED_TRACE(table->isa);
#define HONE_KERNEL(name, result, parameters) EXPECT_NE(table->name, nullptr) << #name;
#include "kernels/list.inc"
#undef HONE_KERNEL
  }
}

TEST(Registry, TablesDiffer) {
  for (std::size_t i = 1; i < available_kernels().size(); ++i) {
    EXPECT_NE(available_kernels()[i]->add, available_kernels()[i - 1]->add);
  }
}

TEST(Registry, FindsByName) {
  for (const KernelTable* table : available_kernels()) {
    EXPECT_EQ(find_kernels(table->isa), table);
  }
  EXPECT_EQ(find_kernels("sse2"), nullptr);
  EXPECT_EQ(find_kernels(""), nullptr);
}

TEST(Registry, ChoosesTheBestUnlessToldOtherwise) {
  const char* wanted = std::getenv("HONE_ISA");
  const KernelTable* named = wanted ? find_kernels(wanted) : nullptr;
  EXPECT_EQ(&kernels(), named ? named : available_kernels().back());
}

}  // namespace
}  // namespace hone::kernels

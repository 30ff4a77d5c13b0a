// Every recipe of recipes/list.inc, as a short run of the same code: it ends, its rows say
// something, and no number is missing.
// SPDX-License-Identifier: Apache-2.0
#include "recipes/recipe.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace hone::recipes {
namespace {

class EachRecipe : public testing::TestWithParam<const Recipe*> {};

TEST_P(EachRecipe, RunsShort) {
  const Recipe& recipe = *GetParam();
  EXPECT_EQ(find_recipe(recipe.name), &recipe);
  EXPECT_FALSE(recipe.paper.empty() || recipe.claim.empty() || recipe.setting.empty());
  ThreadPool pool(2);
  const std::string data = std::string(HONE_SOURCE_DIR) + "/../shared/data";
  const RecipeContext context{pool, 1, 0.004, data, "smollm2", nullptr};
  const auto report = recipe.run(context);
  ASSERT_TRUE(report.ok()) << report.error().text();
  if (!report->skipped.empty()) GTEST_SKIP() << report->skipped;
  EXPECT_FALSE(report->rows.empty());
  EXPECT_FALSE(report->notes.empty()) << "where it differs from the paper";
  for (const RecipeRow& row : report->rows) {
    EXPECT_FALSE(row.what.empty());
    EXPECT_FALSE(row.measured.empty()) << row.what;
    for (const char* broken : {"nan", "inf"}) {
      const auto at = row.measured.find(broken);
      const bool word =
          at != std::string::npos && (at == 0 || std::isalpha(row.measured[at - 1]) == 0);
      EXPECT_FALSE(word) << row.what << ": " << row.measured;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, EachRecipe,
                         testing::ValuesIn(all_recipes().begin(), all_recipes().end()),
                         [](const auto& info) {
                           std::string name(info.param->name);
                           std::ranges::replace(name, '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace hone::recipes

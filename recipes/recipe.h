// What a recipe is: a paper's claim, run at a size that a laptop takes, with the published and the
// measured number side by side.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "base/threads.h"

namespace hone::recipes {

struct RecipeContext {
  ThreadPool& pool;
  std::uint64_t seed = 1;
  // Part of the full run: 1 is what the documentation reports, less is a shorter run of the same
  // code that shows that it still works.
  double budget = 1;
  std::string data;   // folder of public data sets; what needs it skips where it is absent
  std::string model;  // a model file or name, for recipes that start from one
  std::function<void(std::string_view line)> progress;  // may be empty
  std::int64_t seeds = 0;  // of recipes that average over some; 0: as many as the recipe says

  std::int64_t scaled(std::int64_t count, std::int64_t least = 1) const {
    const auto part = static_cast<std::int64_t>(static_cast<double>(count) * budget);
    return part < least ? least : part;
  }
  std::int64_t seeds_of(std::int64_t full) const { return seeds > 0 ? seeds : scaled(full); }
  void tell(std::string_view line) const {
    if (progress) progress(line);
  }
};

// One line of the table. `verdict` is what the comparison says: "reproduced", "weaker", "not
// reproduced", or why there is nothing to compare.
struct RecipeRow {
  std::string what;
  std::string published;
  std::string measured;
  std::string verdict;
};

// A row whose verdict is only whether the claim held here.
inline RecipeRow checked(std::string what, std::string published, std::string measured, bool held) {
  return {std::move(what), std::move(published), std::move(measured),
          held ? "reproduced" : "not reproduced"};
}

struct RecipeReport {
  std::vector<RecipeRow> rows;
  std::vector<std::string> notes;  // where the setting differs from the paper's, and why
  std::string skipped;             // not empty: nothing was run, and why
};

struct Recipe {
  std::string_view name;
  std::string_view paper;    // title, authors' short form, arXiv number
  std::string_view claim;    // one sentence
  std::string_view setting;  // the size at which it is run here
  Result<RecipeReport> (*run)(const RecipeContext& context) = nullptr;
};

std::span<const Recipe* const> all_recipes();
const Recipe* find_recipe(std::string_view name);

#define HONE_RECIPE(name) const Recipe& name##_recipe();
#include "recipes/list.inc"
#undef HONE_RECIPE

}  // namespace hone::recipes

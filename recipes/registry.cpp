// Every recipe of list.inc by its name.
// SPDX-License-Identifier: Apache-2.0
#include "recipes/recipe.h"

namespace hone::recipes {

std::span<const Recipe* const> all_recipes() {
  static const std::vector<const Recipe*> kRecipes = {
#define HONE_RECIPE(name) &name##_recipe(),
#include "recipes/list.inc"
#undef HONE_RECIPE
  };
  return kRecipes;
}

const Recipe* find_recipe(std::string_view name) {
  for (const Recipe* recipe : all_recipes()) {
    if (recipe->name == name) return recipe;
  }
  return nullptr;
}

}  // namespace hone::recipes

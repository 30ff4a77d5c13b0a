// SPDX-License-Identifier: Apache-2.0
#include "cli/registry.h"

#include <array>

namespace hone::cli {

std::span<const Verb* const> all_verbs() {
  static const std::array kVerbs = {
#define HONE_VERB(name) &name##_verb(),
#include "cli/list.inc"
#undef HONE_VERB
  };
  return kVerbs;
}

const Verb* find_verb(std::string_view name) {
  for (const Verb* verb : all_verbs()) {
    if (verb->name == name) return verb;
  }
  return nullptr;
}

}  // namespace hone::cli

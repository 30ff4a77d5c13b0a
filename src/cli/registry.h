// All verbs: expanded from cli/list.inc.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string_view>

#include "cli/verb.h"

namespace hone::cli {

// In the order of the help.
std::span<const Verb* const> all_verbs();
const Verb* find_verb(std::string_view name);  // nullptr if there is none

#define HONE_VERB(name) const Verb& name##_verb();
#include "cli/list.inc"
#undef HONE_VERB

}  // namespace hone::cli

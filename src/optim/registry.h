// Every update rule of list.inc by its name.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string_view>

#include "base/status.h"
#include "optim/rule.h"

namespace hone::optim {

std::span<const UpdateRule* const> all_rules();

// nullptr if there is none of that name.
const UpdateRule* find_rule(std::string_view name);

// The same, with an error that lists the rules there are.
Result<const UpdateRule*> rule_named(std::string_view name);

}  // namespace hone::optim

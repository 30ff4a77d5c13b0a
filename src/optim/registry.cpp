// SPDX-License-Identifier: Apache-2.0
#include "optim/registry.h"

#include <array>
#include <string>
#include <vector>

#include "base/nearest.h"

namespace hone::optim {

#define HONE_UPDATE_RULE(name) const UpdateRule& name##_rule();
#include "optim/list.inc"
#undef HONE_UPDATE_RULE

std::span<const UpdateRule* const> all_rules() {
  static const std::array kRules = {
#define HONE_UPDATE_RULE(name) &name##_rule(),
#include "optim/list.inc"
#undef HONE_UPDATE_RULE
  };
  return kRules;
}

const UpdateRule* find_rule(std::string_view name) {
  for (const UpdateRule* rule : all_rules()) {
    if (rule->name == name) return rule;
  }
  return nullptr;
}

Result<const UpdateRule*> rule_named(std::string_view name) {
  if (const UpdateRule* rule = find_rule(name)) return rule;
  std::vector<std::string_view> names;
  std::string list;
  for (const UpdateRule* rule : all_rules()) {
    names.push_back(rule->name);
    list += (list.empty() ? "" : ", ") + std::string(rule->name);
  }
  const std::string meant = nearest(name, names);
  Error error;
  error.code = ErrorCode::kInvalidArgument;
  error.what = "there is no such update rule";
  error.found = "'" + std::string(name) + "'";
  error.expected = "one of " + list;
  if (!meant.empty()) error.advice = "did you mean '" + meant + "'?";
  return error;
}

}  // namespace hone::optim

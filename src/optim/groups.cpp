// SPDX-License-Identifier: Apache-2.0
#include "optim/groups.h"

#include <fmt/format.h>

#include <cmath>
#include <utility>

namespace hone::optim {
namespace {

constexpr std::string_view kRegex = "re:";

Error invalid(std::string what, std::size_t index, std::string found, std::string expected) {
  Error error;
  error.code = ErrorCode::kInvalidArgument;
  error.what = std::move(what);
  error.where = fmt::format("parameter group {}", index + 1);
  error.found = std::move(found);
  error.expected = std::move(expected);
  return error;
}

// std::regex says what is wrong by an exception; it ends here.
Result<std::regex> compile(const std::string& expression, std::size_t index) {
  try {
    return std::regex(expression, std::regex::ECMAScript | std::regex::optimize);
  } catch (const std::regex_error& error) {
    return invalid("the pattern of a parameter group is no regular expression", index,
                   fmt::format("'{}': {}", expression, error.what()),
                   "an ECMAScript regular expression behind re:");
  }
}

}  // namespace

Result<Groups> Groups::make(std::vector<Group> groups) {
  Groups made;
  for (std::size_t i = 0; i < groups.size(); ++i) {
    const Group& group = groups[i];
    if (group.pattern.empty() || group.pattern == kRegex) {
      return invalid("the pattern of a parameter group is empty", i, "''",
                     "the end of tensor names, or re: and a regular expression");
    }
    if (!(group.learning_rate_factor >= 0.0) || std::isinf(group.learning_rate_factor)) {
      return invalid("the rate factor of a parameter group is not one", i,
                     fmt::format("{}", group.learning_rate_factor), "a number of at least 0");
    }
    if (group.weight_decay && (!(*group.weight_decay >= 0.0) || std::isinf(*group.weight_decay))) {
      return invalid("the weight decay of a parameter group is not one", i,
                     fmt::format("{}", *group.weight_decay), "a number of at least 0");
    }
    std::optional<std::regex> expression;
    if (group.pattern.starts_with(kRegex)) {
      Result<std::regex> compiled = compile(group.pattern.substr(kRegex.size()), i);
      if (!compiled) return compiled.error();
      expression = std::move(*compiled);
    }
    made.expressions_.push_back(std::move(expression));
  }
  made.groups_ = std::move(groups);
  return made;
}

GroupChoice Groups::choose(std::string_view tensor, double weight_decay) const {
  for (std::size_t i = 0; i < groups_.size(); ++i) {
    const Group& group = groups_[i];
    const bool matches = expressions_[i]
                             ? std::regex_search(tensor.begin(), tensor.end(), *expressions_[i])
                             : tensor.ends_with(group.pattern);
    if (!matches) continue;
    return {group.learning_rate_factor, group.weight_decay.value_or(weight_decay), group.rule,
            static_cast<std::ptrdiff_t>(i)};
  }
  return {1.0, weight_decay, {}, -1};
}

std::vector<Group> undecayed_groups() {
  Group bias, norm;
  bias.pattern = "bias";
  bias.weight_decay = 0.0;
  norm.pattern = R"(re:(norm[^.]*|(^|\.)ln_[^.]*)(\.[^.]*)?$)";
  norm.weight_decay = 0.0;
  return {bias, norm};
}

}  // namespace hone::optim

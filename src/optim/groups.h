// Parameter groups: which tensors decay, and which have a rate or a rule of their own, by name.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <regex>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace hone::optim {

// A pattern is the end of a full tensor name (".bias", "attn_norm.weight"), or "re:" and an
// ECMAScript regular expression that is searched in it ("re:blk\\.[0-3]\\.").
struct Group {
  std::string pattern;
  std::optional<double> weight_decay;  // none: the run's
  double learning_rate_factor = 1.0;   // 0 leaves the tensors as they are
  std::string rule;                    // the name of another update rule; empty: the run's
};

// What a tensor gets.
struct GroupChoice {
  double learning_rate_factor = 1.0;
  double weight_decay = 0.0;
  std::string_view rule;      // empty: the run's
  std::ptrdiff_t index = -1;  // of the group; -1: none matched
};

class Groups {
 public:
  Groups() = default;
  // The first group that matches decides. A pattern that is no regular expression, an empty one, or
  // a number out of bounds is an error that names the group.
  static Result<Groups> make(std::vector<Group> groups);

  GroupChoice choose(std::string_view tensor, double weight_decay) const;
  const std::vector<Group>& all() const { return groups_; }

 private:
  std::vector<Group> groups_;
  std::vector<std::optional<std::regex>> expressions_;  // one a group; none: a suffix
};

// Biases and norms do not decay (as in BERT's and GPT's recipes): names that end with "bias", and
// those with "norm" in their last two parts (attn_norm.weight, input_layernorm.weight, ln_1).
std::vector<Group> undecayed_groups();

}  // namespace hone::optim

// Questions with known answers, one JSON object a line.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace hone::tune {

// {"prompt" or "question": …, "choices": […], "answer": index from 0, one of the choices, or a
// letter} is multiple choice; {"prompt" or "question": …, "answer": text, number or a list of
// accepted ones} is answered in the model's own words.
struct EvalExample {
  std::string prompt;
  std::vector<std::string> choices;  // none: exact match
  std::size_t answer = 0;            // the right one of `choices`
  std::vector<std::string> answers;  // exact match: each of them is right
  std::int64_t line = 0;             // in the file, from 1
};

// Empty lines are skipped. Errors name `name` and the line.
Result<std::vector<EvalExample>> read_eval_examples(std::string_view text, const std::string& name);

}  // namespace hone::tune

// When an answer in the model's own words is right.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/status.h"

namespace hone::tune {

struct MatchOptions {
  bool keep_space = false;          // else white space at both ends does not count
  bool ignore_case = false;         // in every script (Unicode's case folding)
  bool ignore_punctuation = false;  // ASCII's, and how much space lies between words
  bool numbers = false;             // "1,234.0", "$1234" and "1234" are the same
  // Regular expressions (PCRE2): the first group of the last match, or all of it where there is no
  // group, is what counts. Empty: the whole text.
  std::string extract = {};         // of what the model said
  std::string extract_answer = {};  // of the answers in the file
};

// Immutable once made.
class AnswerMatcher {
 public:
  // kInvalidArgument, with the place, for what is no regular expression.
  static Result<AnswerMatcher> create(const MatchOptions& options);

  // What counts of a model's text, before it is made comparable. None: the expression found
  // nothing.
  std::optional<std::string> extract(std::string_view said) const;
  bool matches(std::string_view extracted, std::span<const std::string> answers) const;

  AnswerMatcher(AnswerMatcher&&) noexcept;
  AnswerMatcher& operator=(AnswerMatcher&&) noexcept;
  ~AnswerMatcher();

 private:
  struct State;
  explicit AnswerMatcher(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace hone::tune

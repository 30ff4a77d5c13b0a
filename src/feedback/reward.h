// Answers become numbers: by a program that prints them, by comparing with what was expected; or
// candidates become an order.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace hone::feedback {

// What a judge sees of an answer.
struct Judged {
  std::string prompt;
  std::string answer;
  std::vector<std::string> references;  // any of them is right; may be empty
};

// One JSON object a line: {"prompt", "answer", "references"}.
std::string judged_lines(const std::vector<Judged>& answers);

// Numbers of a program's answer, one a line: as many as answers, or one for all of them. kCorrupt
// with the line where there is none, another count, or one that is not finite.
Result<double> mean_reward(std::string_view text, std::size_t answers);

// Places of candidates, best first, separated by spaces, commas or lines: "2 0 1", or the best
// alone. kCorrupt for what is no number, no candidate, or named twice, and for ties ("1=2").
Result<std::vector<std::int64_t>> ranking_of(std::string_view text, std::int64_t candidates);

// 1 where the answer, without white space around and case, is one of the references; else 0.
double exact_reward(const Judged& judged);
// The harmonic mean of precision and recall of words, the best over the references (Rajpurkar et
// al. 2016).
double f1_reward(const Judged& judged);

}  // namespace hone::feedback

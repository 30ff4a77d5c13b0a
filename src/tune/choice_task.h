// Questions with answers to choose from, as a model sees them: a prompt and what may follow.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "engine/session.h"
#include "feedback/gradient.h"
#include "formats/tokenizer.h"
#include "tune/labelled_text.h"

namespace hone::tune {

struct ChoiceExample {
  std::vector<formats::TokenId> prompt;
  std::vector<std::vector<formats::TokenId>> choices;
  std::size_t right = 0;
};

// A text between two pieces, and the words of the labels: `{text} It was` and ` terrible`,
// ` great` (SST-2 as Malladi et al. 2023, appendix E.2, ask it).
struct ChoicePrompt {
  std::string before, after;
  std::vector<std::string> words;
};
const ChoicePrompt& sst2_prompt();

// The first `most` examples in an order drawn by the seed; texts are stripped.
std::vector<ChoiceExample> choice_examples(const formats::Tokenizer& tokenizer,
                                           const ChoicePrompt& prompt, const LabelledText& texts,
                                           std::int64_t most, std::uint64_t seed);

// Some questions in one batch. Where every choice is one token, a question is one sequence whose
// last token predicts all of them; otherwise each choice is a sequence. Places for `virtual_tokens`
// of a soft prompt come in front of each.
feedback::TokenBatch choice_batch(std::span<const ChoiceExample> examples,
                                  std::span<const std::size_t> which,
                                  std::int64_t virtual_tokens = 0);

// Of all questions, in batches: the part that is answered rightly, and the mean loss. `margins`, if
// given, gets each question's log-odds of choice 1 against choice 0 (two choices).
struct ChoiceScores {
  double accuracy = 0;
  double loss = 0;
};
Result<ChoiceScores> score_choices(feedback::Gradient& forward,
                                   std::span<const ChoiceExample> examples,
                                   std::vector<double>* margins = nullptr,
                                   std::int64_t virtual_tokens = 0);

// Accuracy where the answer is choice 1 for margins above the training examples' median: what a
// prompt knows but for its bias (Zhao et al. 2021, "Calibrate before use", in spirit).
double median_accuracy(std::span<const double> training_margins, std::span<const double> margins,
                       std::span<const ChoiceExample> examples);

}  // namespace hone::tune

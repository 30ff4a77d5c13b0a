// SPDX-License-Identifier: Apache-2.0
#include "tune/choice_task.h"

#include <algorithm>

#include "feedback/choices.h"
#include "tune/data/dataset.h"

namespace hone::tune {
namespace {

constexpr std::size_t kScoredTogether = 32;

std::string_view stripped(std::string_view text) {
  const auto first = text.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1);
}

}  // namespace

const ChoicePrompt& sst2_prompt() {
  static const ChoicePrompt kPrompt{"", " It was", {" terrible", " great"}};
  return kPrompt;
}

std::vector<ChoiceExample> choice_examples(const formats::Tokenizer& tokenizer,
                                           const ChoicePrompt& prompt, const LabelledText& texts,
                                           std::int64_t most, std::uint64_t seed) {
  std::vector<ChoiceExample> examples;
  for (const std::size_t i : epoch_order(texts.texts.size(), seed, 0)) {
    if (std::ssize(examples) >= most) break;
    ChoiceExample example;
    const std::string text = prompt.before + std::string(stripped(texts.texts[i])) + prompt.after;
    example.prompt = tokenizer.encode(text, {});
    for (const std::string& word : prompt.words) {
      const auto whole = tokenizer.encode(text + word, {});
      // What the prompt and the word share stays the prompt's.
      const std::size_t shared = std::min(example.prompt.size(), whole.size());
      example.choices.emplace_back(whole.begin() + static_cast<std::ptrdiff_t>(shared),
                                   whole.end());
    }
    example.right = static_cast<std::size_t>(texts.labels[i]);
    examples.push_back(std::move(example));
  }
  return examples;
}

feedback::TokenBatch choice_batch(std::span<const ChoiceExample> examples,
                                  std::span<const std::size_t> which, std::int64_t virtual_tokens) {
  feedback::TokenBatch batch;
  for (std::size_t question = 0; question < which.size(); ++question) {
    const ChoiceExample& example = examples[which[question]];
    const bool single =
        std::ranges::all_of(example.choices, [](const auto& c) { return c.size() == 1; });
    const std::vector<std::uint8_t> nothing(example.prompt.size(), 0);
    if (single) batch.add(example.prompt, nothing, 1.0F, virtual_tokens);
    const auto add_choice = [&](std::size_t c) {
      const auto index = static_cast<std::int32_t>(batch.choice_questions.size());
      batch.choice_questions.push_back(static_cast<std::int32_t>(question));
      const std::vector<formats::TokenId>& words = example.choices[c];
      if (single) {
        batch.rows.push_back(static_cast<std::int32_t>(batch.tokens.size()) - 1);
        batch.targets.push_back(words[0]);
        batch.weights.push_back(1.0F);
      } else {
        std::vector<formats::TokenId> tokens = example.prompt;
        tokens.insert(tokens.end(), words.begin(), words.end());
        std::vector<std::uint8_t> learn(tokens.size(), 0);
        std::fill(learn.end() - std::ssize(words), learn.end(), std::uint8_t{1});
        batch.add(tokens, learn, 1.0F, virtual_tokens);
      }
      batch.row_choices.resize(batch.rows.size(), index);
    };
    add_choice(example.right);
    for (std::size_t c = 0; c < example.choices.size(); ++c) {
      if (c != example.right) add_choice(c);
    }
  }
  return batch;
}

Result<ChoiceScores> score_choices(feedback::Gradient& forward,
                                   std::span<const ChoiceExample> examples,
                                   std::vector<double>* margins, std::int64_t virtual_tokens) {
  ChoiceScores scores;
  const auto count = static_cast<double>(examples.size());
  for (std::size_t first = 0; first < examples.size(); first += kScoredTogether) {
    std::vector<std::size_t> which;
    for (std::size_t i = first; i < std::min(first + kScoredTogether, examples.size()); ++i) {
      which.push_back(i);
    }
    const feedback::TokenBatch batch = choice_batch(examples, which, virtual_tokens);
    auto outcome = forward.run(batch);
    if (!outcome) return outcome.error();
    scores.accuracy += static_cast<double>(outcome->right) / count;
    scores.loss += outcome->loss * static_cast<double>(which.size()) / count;
    for (std::size_t i = 0; margins != nullptr && i < which.size(); ++i) {
      // Log-odds of the right choice against the other one.
      const double of_right = outcome->choice_scores[2 * i] - outcome->choice_scores[2 * i + 1];
      margins->push_back(examples[which[i]].right == 1 ? of_right : -of_right);
    }
  }
  return scores;
}

double median_accuracy(std::span<const double> training_margins, std::span<const double> margins,
                       std::span<const ChoiceExample> examples) {
  std::vector<double> sorted(training_margins.begin(), training_margins.end());
  if (sorted.empty() || margins.empty()) return 0;
  const auto middle = sorted.begin() + std::ssize(sorted) / 2;
  std::ranges::nth_element(sorted, middle);
  double right = 0;
  for (std::size_t i = 0; i < margins.size(); ++i) {
    if ((margins[i] > *middle) == (examples[i].right == 1)) right += 1;
  }
  return right / static_cast<double>(margins.size());
}

}  // namespace hone::tune

// How well a model answers: choices by their likelihood, its own words by exact match.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/session.h"
#include "formats/tokenizer.h"
#include "tune/answer_match.h"
#include "tune/eval_examples.h"

namespace hone::tune {

struct EvalOptions {
  bool raw = false;    // the prompt as it is; else as a user's message in the model's chat template
  std::string system;  // the system's message, for the template
  std::optional<std::string> delimiter;  // between prompt and choice; none: see below
  std::int64_t most_tokens = 64;         // of an answer in the model's own words
  std::vector<std::string> stops;        // which also ends before one of these
  MatchOptions match;
  // Every example is asked of each member of the population that the session runs, side by side.
  std::int64_t members = 1;
  std::function<bool()> interrupted;  // asked between steps; what is done is reported
  std::function<void(std::int64_t done, std::int64_t total)> progress;
};

// Without a delimiter: raw prompts and choices get a space between them unless one of them brings
// white space at the border; a choice in a chat begins the answer without white space in front.

// Of one choice. Only its own tokens count; those that it shares with the prompt, where a token
// spans the border, do for all choices of a question alike.
struct ChoiceScore {
  double log_probability = 0;  // the sum over its tokens, in nats
  std::int64_t tokens = 0;
  std::int64_t characters = 0;  // of the choice as the file has it
};

struct EvalOutcome {
  std::size_t example = 0;  // its index
  std::int64_t member = 0;
  bool right = false;  // exact match, or the choice of the highest sum
  // Multiple choice.
  std::vector<ChoiceScore> scores;
  std::size_t best = 0;                // by the sum
  std::size_t best_per_token = 0;      // by the mean over tokens
  std::size_t best_per_character = 0;  // by the sum over characters (elsewhere "acc_norm")
  // Exact match.
  std::string said;
  std::optional<std::string> extracted;
  std::int64_t tokens = 0;
};

// A share with Wilson's 95 % interval (Wilson 1927, "Probable inference"), which is right near 0
// and 1 and for few examples, too.
struct Proportion {
  std::int64_t count = 0;
  std::int64_t total = 0;
  double share = 0, low = 0, high = 1;
};
Proportion proportion(std::int64_t count, std::int64_t total);

struct EvalReport {
  std::vector<EvalOutcome> outcomes;  // in the order of the examples, member after member
  // Multiple choice; total 0 where there is none.
  Proportion by_sum, per_token, per_character;
  double chance = 0;                    // of guessing
  double choice_loss = 0;               // mean -log of the right choice's share of the choices
  std::vector<std::int64_t> predicted;  // how often each place of the list was the best by the sum
  // Exact match.
  Proportion exact;
  std::int64_t generated_tokens = 0;
  std::int64_t prompt_tokens = 0;  // of all examples
  double seconds = 0;
  bool complete = true;  // not interrupted
};

// Examples are checked against context and template before the first is run. The session's
// sequences are its own afterwards. Errors name the line of the example.
Result<EvalReport> evaluate(engine::Session& session, const formats::Tokenizer& tokenizer,
                            std::span<const EvalExample> examples, const EvalOptions& options);

}  // namespace hone::tune

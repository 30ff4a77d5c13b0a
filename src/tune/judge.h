// What a model says, judged: the objective of tuning where there is no loss to differentiate.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "engine/session.h"
#include "feedback/reward.h"
#include "formats/tokenizer.h"
#include "tune/eval_examples.h"
#include "tune/trained.h"

namespace hone::tune {

struct JudgeOptions {
  // accuracy (exact answers, or the likelier of choices), f1, or a program that gets a JSON line an
  // answer and prints a number for each, or one.
  std::string reward;
  std::string rank;  // a program that gets a JSON line a candidate and prints their order
  std::int64_t most_tokens = 64;
  bool raw = false;     // prompts as they are: the model has no chat template
  double seconds = 60;  // that a program may take
};

class Judge {
 public:
  // Everything outlives the judge.
  Judge(engine::Session& session, const formats::Tokenizer& tokenizer, Trained& trained,
        std::vector<EvalExample> examples, JudgeOptions options)
      : session_(session),
        tokenizer_(tokenizer),
        trained_(trained),
        examples_(std::move(examples)),
        options_(std::move(options)) {}

  // Remembers the trained adapter as a candidate, to be asked `which` of the examples, the same for
  // all candidates until they are judged. Plain adapters answer side by side, some at a time.
  Status look(std::span<const std::size_t> which);
  // The seconds in which so many candidates answer, measured on as many of them as answer side by
  // side; what they say is forgotten. The memory that answering takes is taken from then on.
  Result<double> try_out(std::span<const std::size_t> which, std::int64_t candidates);
  // Of the candidates since the last call, by greedy decoding: minus the mean reward of each.
  Result<std::vector<double>> losses();
  // Or their places by the program, best first.
  Result<std::vector<std::int64_t>> order();

 private:
  using Answers = std::vector<feedback::Judged>;
  Status ask();
  Result<std::vector<Answers>> answers();
  Result<double> reward_of(const Answers& answers) const;

  engine::Session& session_;
  const formats::Tokenizer& tokenizer_;
  Trained& trained_;
  std::vector<EvalExample> examples_;
  JudgeOptions options_;
  std::vector<std::size_t> which_;
  std::vector<formats::Adapter> waiting_;  // candidates that have not been asked
  std::vector<Answers> said_;              // of those that have
};

}  // namespace hone::tune

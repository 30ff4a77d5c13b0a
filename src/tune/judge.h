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

  // Minus the mean reward of what the model says now about some examples, by greedy decoding.
  Result<double> objective(std::span<const std::size_t> which);
  // What the model says now, for ranking: JSON lines.
  Result<std::vector<feedback::Judged>> answers(std::span<const std::size_t> which);
  // The order of candidates, best first, by the program.
  Result<std::vector<std::int64_t>> order(
      std::span<const std::vector<feedback::Judged>> candidates) const;

 private:
  Result<double> reward_of(const std::vector<feedback::Judged>& answers) const;

  engine::Session& session_;
  const formats::Tokenizer& tokenizer_;
  Trained& trained_;
  std::vector<EvalExample> examples_;
  JudgeOptions options_;
};

}  // namespace hone::tune

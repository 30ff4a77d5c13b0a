// SPDX-License-Identifier: Apache-2.0
#include "tune/judge.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "feedback/program.h"
#include "tune/evaluate.h"

namespace hone::tune {

// The trained tensors serve the session as its adapter while it answers, and come back to the bit:
// attaching puts the scale into B.
Result<std::vector<feedback::Judged>> Judge::answers(std::span<const std::size_t> which) {
  const formats::Adapter adapter = adapter_of(trained_, session_);
  HONE_RETURN_IF_ERROR(session_.attach(adapter));
  session_.weights_changed();
  std::vector<EvalExample> asked;
  for (const std::size_t i : which) asked.push_back(examples_[i]);
  EvalOptions how;
  how.most_tokens = options_.most_tokens;
  how.raw = options_.raw;
  auto report = evaluate(session_, tokenizer_, asked, how);
  session_.detach();
  trained_.write_back(adapter);
  if (!report) return report.error();
  std::vector<feedback::Judged> judged;
  for (const EvalOutcome& outcome : report->outcomes) {
    const EvalExample& example = asked[outcome.example];
    feedback::Judged each{example.prompt, outcome.said, example.answers};
    if (!example.choices.empty()) {
      each.answer = example.choices[outcome.best];
      each.references = {example.choices[example.answer]};
    }
    judged.push_back(std::move(each));
  }
  return judged;
}

Result<double> Judge::reward_of(const std::vector<feedback::Judged>& answers) const {
  const bool exact = options_.reward == "accuracy";
  if (!exact && options_.reward != "f1") {
    feedback::ProgramOptions how;
    how.seconds = options_.seconds;
    const auto said = feedback::ask_program(options_.reward, feedback::judged_lines(answers), how);
    if (!said) return said.error().in("--reward");
    auto reward = feedback::mean_reward(*said, answers.size());
    if (!reward) return reward.error().in("--reward " + options_.reward);
    return reward;
  }
  double sum = 0;
  for (const feedback::Judged& each : answers) {
    sum += exact ? feedback::exact_reward(each) : feedback::f1_reward(each);
  }
  return sum / static_cast<double>(answers.size());
}

Result<double> Judge::objective(std::span<const std::size_t> which) {
  const auto said = answers(which);
  if (!said) return said.error();
  const auto reward = reward_of(*said);
  if (!reward) return reward.error();
  return -*reward;
}

Result<std::vector<std::int64_t>> Judge::order(
    std::span<const std::vector<feedback::Judged>> candidates) const {
  std::string lines;
  for (std::size_t c = 0; c < candidates.size(); ++c) {
    nlohmann::ordered_json line{{"candidate", c}, {"answers", nlohmann::ordered_json::array()}};
    for (const feedback::Judged& each : candidates[c]) {
      line["answers"].push_back(
          {{"prompt", each.prompt}, {"answer", each.answer}, {"references", each.references}});
    }
    lines += line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
  }
  feedback::ProgramOptions how;
  how.seconds = options_.seconds;
  const auto said = feedback::ask_program(options_.rank, lines, how);
  if (!said) return said.error().in("--rank");
  auto order = feedback::ranking_of(*said, static_cast<std::int64_t>(candidates.size()));
  if (!order) return order.error().in("--rank " + options_.rank);
  return order;
}

}  // namespace hone::tune

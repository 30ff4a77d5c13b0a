// SPDX-License-Identifier: Apache-2.0
#include "tune/judge.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "base/timing.h"
#include "feedback/program.h"
#include "tune/evaluate.h"

namespace hone::tune {
namespace {

// Candidates that answer at once: their adapters are multiplied as one.
constexpr std::size_t kTogether = 8;

}  // namespace

Status Judge::look(std::span<const std::size_t> which) {
  which_.assign(which.begin(), which.end());
  waiting_.push_back(adapter_of(trained_, session_));
  const bool together = waiting_.back().kind == formats::AdapterKind::kLora;
  if (waiting_.size() < (together ? kTogether : 1)) return {};
  return ask();
}

// A single adapter lies where the trained one does, which comes back to the bit; those of a
// population lie beside it.
Status Judge::ask() {
  if (waiting_.empty()) return {};
  const std::vector<formats::Adapter> candidates = std::exchange(waiting_, {});
  const bool alone = candidates.size() == 1;
  const formats::Adapter trained = alone ? adapter_of(trained_, session_) : formats::Adapter{};
  HONE_RETURN_IF_ERROR(alone ? session_.attach(candidates[0])
                             : session_.attach_population(candidates));
  std::vector<EvalExample> asked;
  for (const std::size_t i : which_) asked.push_back(examples_[i]);
  EvalOptions how;
  how.most_tokens = options_.most_tokens;
  how.raw = options_.raw;
  how.members = std::ssize(candidates);
  auto report = evaluate(session_, tokenizer_, asked, how);
  session_.detach();
  if (alone) trained_.write_back(trained);
  if (!report) return report.error();
  for (const EvalOutcome& outcome : report->outcomes) {
    if (outcome.example == 0) said_.emplace_back();
    const EvalExample& example = asked[outcome.example];
    feedback::Judged each{example.prompt, outcome.said, example.answers};
    if (!example.choices.empty()) {
      each.answer = example.choices[outcome.best];
      each.references = {example.choices[example.answer]};
    }
    said_.back().push_back(std::move(each));
  }
  return {};
}

Result<double> Judge::try_out(std::span<const std::size_t> which, std::int64_t candidates) {
  const double start = seconds_now();
  std::int64_t tried = 0;
  do {
    HONE_RETURN_IF_ERROR(look(which));
    ++tried;
  } while (!waiting_.empty() && tried < candidates);
  const auto forgotten = answers();
  if (!forgotten) return forgotten.error();
  return (seconds_now() - start) * static_cast<double>(candidates) / static_cast<double>(tried);
}

Result<std::vector<Judge::Answers>> Judge::answers() {
  HONE_RETURN_IF_ERROR(ask());
  return std::exchange(said_, {});
}

Result<double> Judge::reward_of(const Answers& answers) const {
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

Result<std::vector<double>> Judge::losses() {
  const auto candidates = answers();
  if (!candidates) return candidates.error();
  std::vector<double> losses;
  for (const Answers& each : *candidates) {
    const auto reward = reward_of(each);
    if (!reward) return reward.error();
    losses.push_back(-*reward);
  }
  return losses;
}

Result<std::vector<std::int64_t>> Judge::order() {
  const auto candidates = answers();
  if (!candidates) return candidates.error();
  std::string lines;
  for (std::size_t c = 0; c < candidates->size(); ++c) {
    nlohmann::ordered_json line{{"candidate", c}, {"answers", nlohmann::ordered_json::array()}};
    for (const feedback::Judged& each : (*candidates)[c]) {
      line["answers"].push_back(
          {{"prompt", each.prompt}, {"answer", each.answer}, {"references", each.references}});
    }
    lines += line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
  }
  feedback::ProgramOptions how;
  how.seconds = options_.seconds;
  const auto said = feedback::ask_program(options_.rank, lines, how);
  if (!said) return said.error().in("--rank");
  auto order = feedback::ranking_of(*said, std::ssize(*candidates));
  if (!order) return order.error().in("--rank " + options_.rank);
  return order;
}

}  // namespace hone::tune

// What `hone tune` tells: what will be trained and what it takes, answers before and after, the
// result as a file.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/status.h"
#include "cli/arguments.h"
#include "cli/output.h"
#include "tune/job.h"

namespace hone::cli {

void report_plan(tune::Job& job, Output& output);
Json plan_document(tune::Job& job);
// Of the whole process at its peak: what was resident before the first step, and what is planned.
std::int64_t planned_bytes(tune::Job& job);

struct Answered {
  std::string question;
  std::string reference;  // may be empty
  std::string before;
  std::string after;
};
// JSON lines with "prompt" or "question", or "messages" whose first user turn is asked.
Result<std::vector<Answered>> read_questions(const std::string& path);
// Greedy answers of at most 80 tokens, by the model as it is or with what was trained.
Status answer_all(tune::Job& job, std::vector<Answered>& answers, bool after, Output& output);
void print_answers(const std::vector<Answered>& answers, Output& output);
Json answers_document(const std::vector<Answered>& answers);

// The adapter, or of `full` and `head` the model's weights as GGUF.
Status save_result(tune::Job& job, const std::string& path, Output& output);

}  // namespace hone::cli

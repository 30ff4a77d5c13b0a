// SPDX-License-Identifier: Apache-2.0
#include "cli/tune_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>

#include "base/file.h"
#include "base/human.h"
#include "base/system.h"
#include "engine/adapter.h"
#include "engine/generate.h"
#include "formats/conversation.h"

namespace hone::cli {
namespace {

std::vector<std::string> examples_of_names(const tune::Trained& trained) {
  std::vector<std::string> names;
  for (const tune::TrainedTensor& tensor : trained.tensors) {
    if (names.size() < 3) names.push_back(tensor.name);
  }
  return names;
}

}  // namespace

std::int64_t planned_bytes(tune::Job& job) { return job.planned_bytes(); }

Json plan_document(tune::Job& job) {
  const tune::MemoryClasses& memory = job.memory();
  const tune::DataReport& data = job.data().report;
  return Json{{"method", job.options().method.method},
              {"trained_tensors", job.trained().tensors.size()},
              {"trained_parameters", job.trained().parameters()},
              {"trained_bytes", job.trained().bytes()},
              {"examples", data.kept},
              {"dropped", data.dropped},
              {"truncated", data.truncated},
              {"learned_tokens", data.learned},
              {"planned_steps", job.steps()},
              {"learning_rate", job.options().learning_rate},
              {"memory",
               {{"weights", memory.weights},
                {"trained", memory.trained},
                {"optimizer", memory.optimizer},
                {"offloaded", memory.offloaded},
                {"gradients", memory.gradients},
                {"kept", memory.kept},
                {"activations", memory.activations},
                {"work", memory.work},
                {"estimated", planned_bytes(job)}}},
              {"estimated_step_seconds", job.step_seconds()},
              {"kept_bytes", job.plan().kept.kept},
              {"operations_again", job.plan().kept.again}};
}

void report_plan(tune::Job& job, Output& output) {
  if (output.json() || output.quiet()) return;
  const tune::Trained& trained = job.trained();
  const tune::DataReport& data = job.data().report;
  output.print(fmt::format("trains {} numbers ({}) in {} tensors: {}{}\n",
                           human_count(trained.parameters()), human_bytes(trained.bytes()),
                           trained.tensors.size(),
                           fmt::format("{}", fmt::join(examples_of_names(trained), ", ")),
                           trained.tensors.size() > 3 ? ", …" : ""));
  output.print(fmt::format(
      "on {} examples, {} tokens of which {} are learned ({} records dropped, {} cut short)\n",
      data.kept, data.tokens, data.learned, data.dropped, data.truncated));
  const tune::MemoryClasses& memory = job.memory();
  output.print(fmt::format(
      "memory: weights {}, trained {}, optimizer {}, gradients {}, {}activations {}, work space "
      "{}; "
      "about {} of the process\n",
      human_bytes(memory.weights), human_bytes(memory.trained), human_bytes(memory.optimizer),
      human_bytes(memory.gradients),
      memory.kept > 0 ? fmt::format("kept of lower layers {}, ", human_bytes(memory.kept)) : "",
      human_bytes(memory.activations), human_bytes(memory.work), human_bytes(planned_bytes(job))));
  if (job.plan().kept.again > 0) {
    output.print(fmt::format("to fit into {}, {} operations are made again in the backward part\n",
                             human_bytes(job.memory_limit()), job.plan().kept.again));
  }
  if (job.offloads()) {
    output.print(
        fmt::format("the optimizer's state, {}, lies in a file; what a step does not work "
                    "on is not in memory\n",
                    human_bytes(memory.offloaded)));
  }
  if (job.step_seconds() > 0) {
    output.print(
        fmt::format("{} steps, about {} each as measured, {} together\n", job.steps(),
                    human_duration(job.step_seconds()),
                    human_duration(job.step_seconds() * static_cast<double>(job.steps()))));
  }
}

Result<std::vector<Answered>> read_questions(const std::string& path) {
  const auto text = read_file(path);
  if (!text) return text.error();
  std::vector<Answered> out;
  std::size_t line_number = 0;
  std::size_t start = 0;
  while (start < text->size()) {
    const std::size_t end = std::min(text->find('\n', start), text->size());
    const std::string line = text->substr(start, end - start);
    start = end + 1;
    ++line_number;
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const auto json = nlohmann::json::parse(line, nullptr, false);
    Answered answered;
    if (json.is_object()) {
      for (const char* key : {"prompt", "question"}) {
        if (json.contains(key) && json[key].is_string()) answered.question = json[key];
      }
      for (const char* key : {"answer", "completion", "reference"}) {
        if (json.contains(key) && json[key].is_string()) answered.reference = json[key];
      }
      if (json.contains("messages") && json["messages"].is_array()) {
        for (const auto& message : json["messages"]) {
          if (!message.is_object() || !message.contains("content")) continue;
          if (!message["content"].is_string()) continue;
          const bool user = message.value("role", "") == "user";
          (user ? answered.question : answered.reference) = message["content"];
        }
      }
    }
    if (answered.question.empty()) {
      return Error{ErrorCode::kCorrupt,
                   "this line asks nothing",
                   fmt::format("{}, line {}", path, line_number),
                   line.substr(0, 60),
                   R"({"question": …} or {"messages": […]})",
                   ""};
    }
    out.push_back(std::move(answered));
  }
  return out;
}

Status answer_all(tune::Job& job, std::vector<Answered>& answers, bool after, Output& output) {
  engine::Session& session = job.session();
  std::optional<formats::Adapter> adapter;
  if (after && tune::trains_adapter(job.trained().options.method)) {
    adapter.emplace(tune::adapter_of(job.trained(), session));
    HONE_RETURN_IF_ERROR(session.attach(*adapter));
  }
  if (after && !adapter) {
    // What answered before has packed copies of what was trained since.
    for (const tune::TrainedTensor& tensor : job.trained().tensors) {
      HONE_RETURN_IF_ERROR(session.weights().changed(tensor.name));
    }
  }
  const bool scales = after && job.trained().options.method == "scale";
  if (scales) HONE_RETURN_IF_ERROR(tune::show_scales(job.trained(), session, true));
  session.weights_changed();
  output.note(after ? "answering again" : "answering before");
  for (Answered& each : answers) {
    std::vector<formats::TokenId> tokens;
    if (job.chat() != nullptr) {
      const formats::Message message{"user", each.question};
      const auto text = formats::conversation_text(
          *job.chat(), job.tokenizer(), std::span(&message, 1), formats::ConversationEnd::kOpen);
      if (!text) return text.error();
      tokens = formats::conversation_tokens(job.tokenizer(), *text);
    } else {
      tokens = formats::prompt_tokens(job.tokenizer(), each.question);
    }
    engine::GenerateOptions generate;
    generate.sampling.temperature = 0;
    generate.most_tokens = 80;
    const engine::SequenceId sequence = session.begin();
    const auto made = engine::generate(session, job.tokenizer(), sequence, tokens, generate);
    session.end(sequence);
    if (!made) return made.error();
    (after ? each.after : each.before) = made->text;
  }
  if (scales) HONE_RETURN_IF_ERROR(tune::show_scales(job.trained(), session, false));
  if (adapter) {
    session.detach();
    job.trained().write_back(*adapter);  // attaching put the scale into B
  }
  return {};
}

void print_answers(const std::vector<Answered>& answers, Output& output) {
  for (const Answered& each : answers) {
    output.print(fmt::format("\n{}\n  before: {}\n  after:  {}\n",
                             output.bold(visible(each.question)), visible(each.before),
                             visible(each.after)));
    if (!each.reference.empty()) {
      output.print(fmt::format("  {}\n", output.dim("should be: " + visible(each.reference))));
    }
  }
}

Json answers_document(const std::vector<Answered>& answers) {
  Json out = Json::array();
  for (const Answered& each : answers) {
    out.push_back(Json{{"question", each.question},
                       {"before", each.before},
                       {"after", each.after},
                       {"reference", each.reference}});
  }
  return out;
}

Status save_result(tune::Job& job, const std::string& path, Output&) {
  if (tune::trains_adapter(job.trained().options.method)) {
    return engine::write_adapter(path, tune::adapter_of(job.trained(), job.session()),
                                 job.session().source());
  }
  return tune::write_model(job.trained(), job.session(), path);
}

}  // namespace hone::cli

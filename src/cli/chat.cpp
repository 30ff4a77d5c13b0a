// hone chat: a conversation in the terminal.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <readline/history.h>
#include <readline/readline.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <memory>

#include "base/system.h"
#include "cli/model_options.h"
#include "cli/registry.h"

namespace hone::cli {
namespace {

struct Options {
  ModelOptions model;
  SamplingArguments sampling;
  std::optional<std::string> system;
};

void declare(Options& options, Arguments& arguments) {
  declare_model(options.model, arguments);
  arguments.option("--system", options.system, "what the model is told before the conversation");
  declare_sampling(options.sampling, arguments);
}

// Ctrl-C stops the answer and not the program. A signal handler can reach nothing but a global.
std::atomic<bool> stop_answer{false};

void on_interrupt(int) { stop_answer.store(true); }

void catch_interrupts_of_answers() {
  struct sigaction action {};
  action.sa_handler = on_interrupt;
  action.sa_flags = SA_RESTART;
  sigaction(SIGINT, &action, nullptr);
}

constexpr const char* kHelp =
    "  /help   these words\n  /reset  forget the conversation\n  /exit   leave (also Ctrl-D)\n"
    "  Ctrl-C stops an answer.\n";

// One line from the person; nothing at the end of input. Readline where a person types, so that
// arrows, search and history work; plain lines otherwise.
class LineReader {
 public:
  LineReader() : terminal_(isatty(STDIN_FILENO) != 0) {
    const std::string cache = cache_folder();
    if (!terminal_ || cache.empty()) return;
    std::error_code ignored;
    std::filesystem::create_directories(cache, ignored);
    history_ = cache + "/chat_history";
    read_history(history_.c_str());
  }
  ~LineReader() {
    if (!history_.empty()) write_history(history_.c_str());
  }
  LineReader(const LineReader&) = delete;
  LineReader& operator=(const LineReader&) = delete;

  std::optional<std::string> read() {
    if (!terminal_) {
      std::string line;
      if (!std::getline(std::cin, line)) return std::nullopt;
      return line;
    }
    const std::unique_ptr<char, decltype(&std::free)> line(readline("> "), &std::free);
    if (line == nullptr) return std::nullopt;
    if (*line != '\0') add_history(line.get());
    return std::string(line.get());
  }

 private:
  bool terminal_;
  std::string history_;
};

// The conversation: messages, and the tokens of it that the model has seen.
class Conversation {
 public:
  Conversation(LoadedModel& model, const formats::ChatTemplate& chat, const Options& options)
      : model_(model), chat_(chat), options_(options) {
    reset();
  }

  void reset() {
    if (sequence_ != 0) model_.session->end(sequence_);
    sequence_ = model_.session->begin();
    seen_.clear();
    messages_.clear();
    if (options_.system) messages_.push_back({"system", *options_.system});
  }

  Status answer(const std::string& line, Output& output) {
    messages_.push_back({"user", line});
    const Status status = answer_last(output);
    if (!status.ok()) messages_.pop_back();
    return status;
  }

 private:
  Status answer_last(Output& output) {
    const auto tokens = render(model_, chat_, messages_);
    if (!tokens) return tokens.error();
    // What the cache holds and the new text share stays; the template may have changed the rest.
    std::size_t same = 0;
    while (same < seen_.size() && same + 1 < tokens->size() && seen_[same] == (*tokens)[same]) {
      ++same;
    }
    HONE_RETURN_IF_ERROR(model_.session->truncate(sequence_, static_cast<std::int64_t>(same)));
    seen_.assign(tokens->begin(), tokens->begin() + static_cast<std::ptrdiff_t>(same));
    engine::GenerateOptions generate = generate_options(options_.sampling);
    generate.interrupted = [] { return stop_answer.load(); };
    stop_answer.store(false);
    auto result = engine::generate(*model_.session, model_.tokenizer, sequence_,
                                   std::span(*tokens).subspan(same), generate,
                                   [&](std::string_view text) { output.stream(text); });
    if (!result) return result.error();
    output.stream(result->reason == engine::StopReason::kInterrupted ? " [stopped]\n" : "\n");
    messages_.push_back({"assistant", result->text});
    seen_ = *tokens;
    seen_.insert(seen_.end(), result->tokens.begin(), result->tokens.end());
    seen_.resize(static_cast<std::size_t>(model_.session->length(sequence_)));
    if (!output.quiet() && isatty(STDERR_FILENO) != 0) {
      const auto count = static_cast<double>(result->tokens.size());
      output.note(fmt::format("{:.0f} tokens/s, {} of {} tokens of context",
                              result->decode_seconds > 0 ? count / result->decode_seconds : 0.0,
                              seen_.size(), model_.session->context()));
    }
    return {};
  }

  LoadedModel& model_;
  const formats::ChatTemplate& chat_;
  const Options& options_;
  engine::SequenceId sequence_ = 0;
  std::vector<formats::TokenId> seen_;
  std::vector<formats::Message> messages_;
};

Status run(const Options& options, Output& output) {
  auto model = load(options.model);
  if (!model) return model.error();
  const auto chat = chat_template_of(*model);
  if (!chat) return chat.error();
  catch_interrupts_of_answers();
  LineReader reader;
  Conversation conversation(*model, *chat, options);
  if (isatty(STDIN_FILENO) != 0) output.print(output.dim("/help for help\n"));
  while (const auto line = reader.read()) {
    if (line->empty()) continue;
    if (*line == "/exit" || *line == "/quit") break;
    if (*line == "/help") {
      output.print(kHelp);
    } else if (*line == "/reset") {
      conversation.reset();
    } else if (const Status status = conversation.answer(*line, output); !status.ok()) {
      // A conversation outlives an answer that failed: a prompt too long, a template's refusal.
      output.error(status.error());
    }
  }
  keep_packed(*model->session, output);
  return {};
}

}  // namespace

const Verb& chat_verb() {
  static const Verb kVerb = make_verb(
      "chat", "talk with a model in the terminal",
      "hone chat smollm2\nhone chat smollm2 --system \"Answer in one sentence.\"", declare, run);
  return kVerb;
}

}  // namespace hone::cli

// SPDX-License-Identifier: Apache-2.0
#include "cli/program.h"

#include <fmt/format.h>

#include <atomic>
#include <csignal>
#include <exception>
#include <new>
#include <vector>

#include "base/nearest.h"
#include "cli/registry.h"

namespace hone::cli {
namespace {

// The one thing that a signal handler can reach.
std::atomic<bool> interrupt_came{false};

void on_interrupt(int) { interrupt_came.store(true); }

std::string overview() {
  std::string text =
      "hone runs language models on the processor, compiled through a graph.\n\n"
      "Usage: hone VERB [ARGUMENTS] [OPTIONS]\n\nVerbs:\n";
  for (const Verb* verb : all_verbs()) {
    text += fmt::format("  {:<12} {}\n", verb->name, verb->summary);
  }
  text +=
      "\n`hone help VERB` says more about one of them. MODEL is everywhere a known model's name\n"
      "(`hone fetch` lists them), a GGUF file, or a Hugging Face folder. --json gives JSON.\n";
  return text;
}

std::string help_of(const Verb& verb, const Arguments& arguments) {
  std::string text = fmt::format("hone {}: {}\n", verb.name, verb.summary);
  text += arguments.help();
  while (text.ends_with("\n\n")) text.pop_back();
  text += verb.example.find('\n') == verb.example.npos ? "\nExample:\n" : "\nExamples:\n";
  std::string_view rest = verb.example;
  while (!rest.empty()) {
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    text += fmt::format("  {}\n", rest.substr(0, end));
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return text;
}

Error unknown_verb(const std::string& name) {
  std::vector<std::string_view> names = {"help"};
  for (const Verb* verb : all_verbs()) names.push_back(verb->name);
  const std::string meant = nearest(name, names);
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("there is no verb '{}'", name),
               "the command line",
               "",
               fmt::format("one of {}", fmt::join(names, ", ")),
               meant.empty() ? "see `hone help`" : fmt::format("did you mean `hone {}`?", meant)};
}

Status help(std::span<const std::string> words, Output& output) {
  if (words.empty()) {
    output.print(overview());
    return {};
  }
  const Verb* verb = find_verb(words[0]);
  if (verb == nullptr) return unknown_verb(words[0]);
  Arguments arguments(verb->name);
  (void)verb->declare(arguments);
  output.print(help_of(*verb, arguments));
  return {};
}

Status run_verb(const Verb& verb, std::span<const std::string> words, Output& output) {
  Arguments arguments(verb.name);
  const Action action = verb.declare(arguments);
  HONE_RETURN_IF_ERROR(arguments.parse(words));
  if (arguments.wants_help()) {
    output.print(help_of(verb, arguments));
    return {};
  }
  output = Output(arguments.wants_json(), arguments.wants_quiet());
  return action(output);
}

Status dispatch(std::span<const std::string> words, Output& output) {
  const std::string first = words.empty() ? "help" : words[0];
  if (first == "--version" || first == "-V" || first == "version") {
    output.print(fmt::format("hone {}\n", HONE_VERSION));
    return {};
  }
  if (first == "help" || first == "--help" || first == "-h") {
    return help(words.empty() ? words : words.subspan(1), output);
  }
  const Verb* verb = find_verb(first);
  if (verb == nullptr) return unknown_verb(first);
  return run_verb(*verb, words.subspan(1), output);
}

// Whether the caller wants JSON, known before the arguments make sense.
bool asks_for_json(std::span<const std::string> words) {
  for (const std::string& word : words) {
    if (word == "--") return false;
    if (word == "--json") return true;
  }
  return false;
}

// No exception of a library leaves the program.
Status guarded(std::span<const std::string> words, Output& output) {
  try {
    return dispatch(words, output);
  } catch (const std::bad_alloc&) {
    return Error{ErrorCode::kOutOfMemory,
                 "the machine has not enough memory for this",
                 "",
                 "",
                 "",
                 "close other programs, or choose a smaller model or context"};
  } catch (const std::exception& exception) {
    return Error{ErrorCode::kInternal,
                 "something inside of hone went wrong",
                 "",
                 exception.what(),
                 "",
                 "please report it with the command that you ran"};
  }
}

}  // namespace

int exit_status(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInternal: return 1;
    case ErrorCode::kInvalidArgument: return 2;
    case ErrorCode::kNotFound: return 3;
    case ErrorCode::kCorrupt: return 4;
    case ErrorCode::kUnsupported: return 5;
    case ErrorCode::kOutOfRange: return 6;
    case ErrorCode::kOutOfMemory: return 7;
    case ErrorCode::kIo: return 8;
  }
  return 1;
}

void catch_interrupts() {
  struct sigaction action {};
  action.sa_handler = on_interrupt;
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

bool interrupted() { return interrupt_came.load(); }

int run_program(std::span<const std::string> words) {
  Output output(asks_for_json(words), false);
  Status status = guarded(words, output);
  if (interrupted()) {
    (void)output.finish();
    return kExitInterrupted;
  }
  if (!status.ok()) output.error(status.error());
  const Status finished = output.finish();
  if (status.ok() && !finished.ok()) {
    status = finished;
    Output(false, false).error(status.error());
  }
  return status.ok() ? 0 : exit_status(status.error().code);
}

}  // namespace hone::cli

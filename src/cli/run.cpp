// hone run: completes or answers one prompt.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "cli/model_options.h"
#include "cli/program.h"
#include "cli/registry.h"
#include "formats/conversation.h"

namespace hone::cli {
namespace {

struct Options {
  ModelOptions model;
  SamplingArguments sampling;
  std::optional<std::string> prompt;
  std::optional<std::string> file;
  std::optional<std::string> system;
  bool raw = false;
};

void declare(Options& options, Arguments& arguments) {
  declare_model(options.model, arguments);
  arguments.option("-p,--prompt", options.prompt, "what to answer; standard input without it");
  arguments.option("-f,--file", options.file, "read the prompt from a file", "FILE");
  arguments.option("--system", options.system, "what the model is told before the prompt");
  arguments.flag("--raw", options.raw, "complete the text as it is, without a chat template");
  declare_sampling(options.sampling, arguments);
}

Result<std::string> prompt_of(const Options& options) {
  if (options.prompt && options.file) {
    return Error{ErrorCode::kInvalidArgument, "--prompt and --file exclude each other", "", "", "",
                 "give one of them"};
  }
  if (options.prompt) return *options.prompt;
  if (!options.file && isatty(STDIN_FILENO) != 0) {
    return Error{ErrorCode::kInvalidArgument,
                 "there is no prompt",
                 "",
                 "",
                 "--prompt TEXT, --file FILE, or text on standard input",
                 "hone run " + options.model.model + " -p \"Why is the sky blue?\""};
  }
  return read_text(options.file.value_or("-"));
}

Result<std::vector<formats::TokenId>> tokens_of(const Options& options, const LoadedModel& model,
                                                const std::string& prompt) {
  if (options.raw || model.tokenizer.vocabulary().chat_template.empty()) {
    return formats::prompt_tokens(model.tokenizer, prompt);
  }
  const auto chat = chat_template_of(model);
  if (!chat) return chat.error();
  std::vector<formats::Message> messages;
  if (options.system) messages.push_back({"system", *options.system});
  messages.push_back({"user", prompt});
  return render(model, *chat, messages);
}

double rate(std::size_t tokens, double seconds) {
  return seconds > 0 ? static_cast<double>(tokens) / seconds : 0;
}

Status run(const Options& options, Output& output) {
  const auto prompt = prompt_of(options);
  if (!prompt) return prompt.error();
  auto model = load(options.model);
  if (!model) return model.error();
  const auto tokens = tokens_of(options, *model, *prompt);
  if (!tokens) return tokens.error();
  catch_interrupts();
  engine::GenerateOptions generate = generate_options(options.sampling);
  generate.interrupted = [] { return interrupted(); };
  const engine::SequenceId sequence = model->session->begin();
  const auto show = [&](std::string_view text) { output.stream(text); };
  const auto answer = engine::generate(*model->session, model->tokenizer, sequence, *tokens,
                                       generate, output.json() ? engine::Show() : show);
  if (!answer) return answer.error();
  const double prefill = rate(tokens->size(), answer->prefill_seconds);
  const double decode = rate(answer->tokens.size(), answer->decode_seconds);
  if (output.json()) {
    output.document(Json{{"text", answer->text},
                         {"tokens", answer->tokens},
                         {"stop_reason", engine::stop_reason_name(answer->reason)},
                         {"prompt_tokens", answer->prompt_tokens},
                         {"prefill_seconds", answer->prefill_seconds},
                         {"prefill_tokens_per_second", prefill},
                         {"decode_seconds", answer->decode_seconds},
                         {"decode_tokens_per_second", decode}});
    keep_packed(*model->session, output);
    return {};
  }
  output.stream("\n");
  if (!output.quiet()) {
    output.note(fmt::format("{} prompt tokens at {:.0f}/s, {} tokens at {:.0f}/s, stopped by {}",
                            answer->prompt_tokens, prefill, answer->tokens.size(), decode,
                            engine::stop_reason_name(answer->reason)));
  }
  keep_packed(*model->session, output);
  return {};
}

}  // namespace

const Verb& run_verb() {
  static const Verb kVerb =
      make_verb("run", "answer a prompt, or complete a text",
                "hone run smollm2 -p \"Why is the sky blue?\"\n"
                "hone run gemma3 --raw -p \"Once upon a time\" --temperature 0 --tokens 64",
                declare, run);
  return kVerb;
}

}  // namespace hone::cli

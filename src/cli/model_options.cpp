// SPDX-License-Identifier: Apache-2.0
#include "cli/model_options.h"

#include <fmt/format.h>

#include <iostream>
#include <iterator>

#include "base/file.h"
#include "base/human.h"
#include "base/system.h"
#include "formats/conversation.h"

namespace hone::cli {

void declare_adapter(ModelOptions& options, Arguments& arguments) {
  arguments.option("--adapter", options.adapter,
                   "run with this adapter: a GGUF file, or a PEFT folder", "PATH");
  arguments.option("--adapter-scale", options.adapter_scale,
                   "strength of the adapter; 0: as without, 1: as trained", Numbers{-100, 100});
}

void declare_model(ModelOptions& options, Arguments& arguments) {
  arguments.model(options.model);
  arguments.option("-j,--threads", options.threads, "threads; 0: all cores that may be used",
                   Integers{0, 1024});
  arguments.option("-c,--context", options.context,
                   "tokens of the longest sequence; 0: the model's, at most 4096",
                   Integers{0, 1 << 24});
  arguments.option("--batch", options.batch, "tokens of a prompt that are run at once",
                   Integers{1, 8192});
  arguments.choice("--arithmetic", options.arithmetic, {"int8", "float"},
                   "of products with quantized weights: int8 is fast, float the reference");
  arguments.choice("--cache", options.cache, {"f16", "int8", "f32"}, "form of keys and values");
  declare_adapter(options, arguments);
  declare_stream(options, arguments);
}

void declare_stream(ModelOptions& options, Arguments& arguments) {
  arguments.size(
      "--stream", options.stream,
      "read the matrices from the file at every step, through a window of so many bytes; "
      "without it, a model larger than the memory is");
  arguments.flag("--no-packed-file", options.no_packed_file,
                 "neither read nor keep the packed form of the weights that the cache holds for "
                 "quick starts and streams");
}

engine::SessionOptions session_options(const ModelOptions& options) {
  engine::SessionOptions session;
  session.threads = static_cast<int>(options.threads);
  session.context = options.context;
  session.batch = options.batch;
  session.stream = options.stream;
  if (!options.no_packed_file) session.packed_folder = engine::packed_folder();
  session.compile.arithmetic =
      options.arithmetic == "float" ? engine::Arithmetic::kFloat : engine::Arithmetic::kInteger;
  session.compile.lower.cache = options.cache == "f32"    ? kernels::CacheKind::kF32
                                : options.cache == "int8" ? kernels::CacheKind::kI8
                                                          : kernels::CacheKind::kF16;
  return session;
}

void declare_sampling(SamplingArguments& options, Arguments& arguments) {
  arguments.option("-n,--tokens", options.tokens, "most tokens of the answer",
                   Integers{1, 1 << 24});
  arguments.option("-t,--temperature", options.temperature, "0: always the most likely token",
                   Numbers{0, 100});
  arguments.option("--top-k", options.top_k, "draw among the k most likely; 0: off",
                   Integers{0, 1 << 24});
  arguments.option("--top-p", options.top_p, "draw among the most likely that make up p; 1: off",
                   Numbers{0, 1});
  arguments.option("--min-p", options.min_p, "leave out what is less than p times the best; 0: off",
                   Numbers{0, 1});
  arguments.option("--repetition-penalty", options.repetition_penalty,
                   "above 1: make tokens less likely that came lately", Numbers{0.01, 100});
  arguments.option("-s,--seed", options.seed, "same seed, same answer", Integers{0});
  arguments.option("--stop", options.stops, "end before this text; may be given several times");
  arguments.flag("--ignore-end", options.ignore_end, "go on past the model's end token");
}

engine::GenerateOptions generate_options(const SamplingArguments& options) {
  engine::GenerateOptions generate;
  generate.sampling.temperature = static_cast<float>(options.temperature);
  generate.sampling.top_k = static_cast<std::int32_t>(options.top_k);
  generate.sampling.top_p = static_cast<float>(options.top_p);
  generate.sampling.min_p = static_cast<float>(options.min_p);
  generate.sampling.repetition_penalty = static_cast<float>(options.repetition_penalty);
  generate.sampling.seed = static_cast<std::uint64_t>(options.seed);
  generate.most_tokens = options.tokens;
  generate.stops = options.stops;
  generate.ignore_end = options.ignore_end;
  return generate;
}

Result<std::unique_ptr<engine::Session>> open_session(const ModelOptions& options,
                                                      const engine::SessionOptions& how) {
  auto session = engine::Session::open(options.model, how);
  if (!session || options.adapter.empty()) return session;
  const auto adapter = engine::read_adapter(options.adapter, (*session)->source());
  if (!adapter) return adapter.error();
  HONE_RETURN_IF_ERROR((*session)->attach(*adapter, options.adapter_scale));
  return session;
}

Result<LoadedModel> load(const ModelOptions& options) {
  auto session = open_session(options, session_options(options));
  if (!session) return session.error();
  auto vocabulary = (*session)->source().vocabulary();
  if (!vocabulary) return vocabulary.error();
  auto tokenizer = formats::Tokenizer::create(*std::move(vocabulary));
  if (!tokenizer) return tokenizer.error();
  return LoadedModel{*std::move(session), *std::move(tokenizer)};
}

void keep_packed(engine::Session& session, Output& output) {
  const auto kept = session.keep_packed();
  if (!kept) {
    output.note("the packed weights are not kept: " + kept.error().text());
  } else if (*kept) {
    const auto bytes = static_cast<std::int64_t>(session.weights().owned_bytes());
    output.note(fmt::format("packed weights kept for quick starts: {} in {}", human_bytes(bytes),
                            session.options().packed_folder));
  }
}

Result<formats::ChatTemplate> chat_template_of(const LoadedModel& model) {
  const std::string& source = model.tokenizer.vocabulary().chat_template;
  if (source.empty()) {
    return Error{ErrorCode::kNotFound,
                 "the model has no chat template",
                 model.session->source().path(),
                 "",
                 "",
                 "it only completes text: use `hone run --raw`"};
  }
  return formats::ChatTemplate::compile(source);
}

Result<std::vector<formats::TokenId>> render(const LoadedModel& model,
                                             const formats::ChatTemplate& chat,
                                             std::span<const formats::Message> messages) {
  const auto text =
      formats::conversation_text(chat, model.tokenizer, messages, formats::ConversationEnd::kOpen);
  if (!text) return text.error();
  return formats::conversation_tokens(model.tokenizer, *text);
}

Result<std::string> read_text(const std::string& path) {
  if (path != "-") return read_file(path);
  return std::string(std::istreambuf_iterator<char>(std::cin), {});
}

}  // namespace hone::cli

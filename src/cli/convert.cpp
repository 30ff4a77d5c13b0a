// hone convert: a Hugging Face folder to a GGUF file, and back; so for adapters, PEFT's and GGUF's.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/human.h"
#include "base/progress.h"
#include "cli/program.h"
#include "cli/registry.h"
#include "engine/adapter.h"
#include "engine/export.h"
#include "engine/rewrite.h"
#include "formats/gguf.h"

namespace hone::cli {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::string input;
  std::string output;
  std::string type = "keep";
  std::string base;
};

void declare(Options& options, Arguments& arguments) {
  arguments.positional("IN", options.input,
                       "the model, any that hone reads; or an adapter: a GGUF file, a PEFT folder");
  arguments.positional("OUT", options.output,
                       "what to write: a name that ends in .gguf, or a folder");
  arguments.choice("--type", options.type, {"keep", "f32", "f16", "bf16"},
                   "of the matrices; keep: as they are (quantized ones become bf16 in a folder)");
  arguments.option("--base", options.base, "IN is an adapter of this model", "MODEL");
}

Status convert_adapter(const Options& options, Output& output) {
  const auto model = engine::ModelSource::open(options.base);
  if (!model) return model.error();
  const auto adapter = engine::read_adapter(options.input, *model);
  if (!adapter) return adapter.error();
  HONE_RETURN_IF_ERROR(engine::write_adapter(options.output, *adapter, *model));
  const bool gguf = options.output.ends_with(".gguf");
  if (output.json()) {
    output.document(Json{{"path", options.output},
                         {"format", gguf ? "gguf" : "peft"},
                         {"kind", formats::adapter_kind_name(adapter->kind)},
                         {"weights", adapter->weights.size()},
                         {"parameters", adapter->parameters()}});
  } else {
    output.print(fmt::format("{} ({}, of {} weights, {} parameters)\n", visible(options.output),
                             gguf ? "GGUF" : "PEFT", adapter->weights.size(),
                             human_count(adapter->parameters())));
  }
  return {};
}

// An adapter given without its model gets a word on what is missing.
bool is_adapter(const std::string& path) {
  std::error_code code;
  if (fs::is_directory(path, code)) return fs::exists(fs::path(path) / "adapter_config.json", code);
  const auto file = formats::GgufFile::open(path);
  if (!file) return false;
  const auto type = file->metadata().text_or("general.type", "");
  return type && *type == "adapter";
}

Status to_gguf(const Options& options, const engine::ModelSource& source,
               const std::function<bool(std::int64_t)>& watch) {
  engine::RewriteOptions how;
  if (options.type != "keep") how.type = dtype_from_name(options.type);
  how.watch = watch;
  ThreadPool pool(0);
  const auto done = engine::rewrite_gguf(source, options.output, how, pool);
  if (!done) return done.error();
  return {};
}

Status to_folder(const Options& options, const engine::ModelSource& source,
                 const std::function<bool(std::int64_t)>& watch) {
  engine::ExportOptions how;
  if (options.type != "keep") {
    how.type = *dtype_from_name(options.type);
  } else if (const auto* tensor = source.find("blk.0.attn_output.weight")) {
    const bool plain = tensor->dtype == DType::kF32 || tensor->dtype == DType::kF16;
    if (plain) how.type = tensor->dtype;
  }
  how.watch = watch;
  return engine::export_folder(source, options.output, how);
}

Status run(const Options& options, Output& output) {
  if (!options.base.empty()) return convert_adapter(options, output);
  if (is_adapter(options.input)) {
    return Error{ErrorCode::kInvalidArgument,
                 "IN is an adapter, and its model is not given",
                 options.input,
                 "",
                 "--base MODEL",
                 "name the model that it was trained on"};
  }
  const auto source = engine::ModelSource::open(options.input);
  if (!source) return source.error();
  std::error_code code;
  if (fs::equivalent(source->path(), options.output, code)) {
    return Error{
        ErrorCode::kInvalidArgument, "input and output are the same", options.output, "", "",
        "give OUT another name"};
  }
  std::int64_t total = 0;
  for (const auto& tensor : source->tensors()) {
    total += static_cast<std::int64_t>(tensor.data.size());
  }
  catch_interrupts();
  std::unique_ptr<Progress> progress;
  if (output.shows_progress()) progress = std::make_unique<Progress>("converting", total);
  const auto watch = [&progress](std::int64_t done) {
    if (progress) progress->update(done);
    return !interrupted();
  };
  const bool gguf = options.output.ends_with(".gguf");
  HONE_RETURN_IF_ERROR(gguf ? to_gguf(options, *source, watch)
                            : to_folder(options, *source, watch));
  progress.reset();
  const fs::path written =
      gguf ? fs::path(options.output) : fs::path(options.output) / "model.safetensors";
  const auto bytes = static_cast<std::int64_t>(fs::file_size(written, code));
  if (output.json()) {
    output.document(Json{{"path", options.output},
                         {"format", gguf ? "gguf" : "hugging_face"},
                         {"tensors", source->tensors().size()},
                         {"bytes", bytes}});
  } else {
    output.print(fmt::format("{} ({}, {} tensors)\n", visible(options.output), human_bytes(bytes),
                             source->tensors().size()));
  }
  return {};
}

}  // namespace

const Verb& convert_verb() {
  static const Verb kVerb =
      make_verb("convert", "a Hugging Face folder to a GGUF file, and back; adapters too",
                "hone convert folder model.gguf\nhone convert model.gguf folder --type f32\n"
                "hone convert peft-folder lora.gguf --base smollm2",
                declare, run);
  return kVerb;
}

}  // namespace hone::cli

// Options that every verb that runs a model shares.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "cli/arguments.h"
#include "cli/output.h"
#include "engine/generate.h"
#include "engine/session.h"
#include "formats/chat_template.h"
#include "formats/tokenizer.h"

namespace hone::cli {

struct ModelOptions {
  std::string model;
  std::int64_t threads = 0;
  std::int64_t context = 0;
  std::int64_t batch = 256;
  std::string arithmetic = "int8";
  std::string cache = "f16";
  std::string adapter;  // a GGUF file or a PEFT folder; empty: none
  double adapter_scale = 1;
  bool no_packed_file = false;
  std::int64_t stream = 0;  // engine::SessionOptions::stream
};

void declare_model(ModelOptions& options, Arguments& arguments);
void declare_adapter(ModelOptions& options, Arguments& arguments);  // part of declare_model
void declare_stream(ModelOptions& options, Arguments& arguments);   // part of declare_model
engine::SessionOptions session_options(const ModelOptions& options);

struct SamplingArguments {
  std::int64_t tokens = 512;
  double temperature = 0.8;
  std::int64_t top_k = 40;
  double top_p = 0.95;
  double min_p = 0.05;
  double repetition_penalty = 1.0;
  std::int64_t seed = 0;
  std::vector<std::string> stops;
  bool ignore_end = false;
};

void declare_sampling(SamplingArguments& options, Arguments& arguments);
engine::GenerateOptions generate_options(const SamplingArguments& options);

// A session with the options' adapter attached.
Result<std::unique_ptr<engine::Session>> open_session(const ModelOptions& options,
                                                      const engine::SessionOptions& how);

// A model ready to answer.
struct LoadedModel {
  std::unique_ptr<engine::Session> session;
  formats::Tokenizer tokenizer;
};
Result<LoadedModel> load(const ModelOptions& options);

// Keeps the packed weights for quick starts, unless they are, and says so. What goes wrong is told,
// too: the answer has been given.
void keep_packed(engine::Session& session, Output& output);

// The model's own chat template; an error with advice where it has none.
Result<formats::ChatTemplate> chat_template_of(const LoadedModel& model);

// The messages as the tokens that the model was trained on, ready for the next answer.
Result<std::vector<formats::TokenId>> render(const LoadedModel& model,
                                             const formats::ChatTemplate& chat,
                                             std::span<const formats::Message> messages);

// A file's content, standard input for "-".
Result<std::string> read_text(const std::string& path);

}  // namespace hone::cli

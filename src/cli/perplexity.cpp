// hone perplexity: how well a model predicts a text.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/progress.h"
#include "cli/model_options.h"
#include "cli/registry.h"

namespace hone::cli {
namespace {

struct Options {
  ModelOptions model;
  std::string file = "-";
};

void declare(Options& options, Arguments& arguments) {
  options.model.context = 512;
  declare_model(options.model, arguments);
  arguments.option("-f,--file", options.file, "the text; - is standard input", "FILE");
}

Status run(const Options& options, Output& output) {
  const auto text = read_text(options.file);
  if (!text) return text.error();
  auto model = load(options.model);
  if (!model) return model.error();
  Progress progress("scoring", 0, 0, ProgressUnit::kCount);
  const auto result =
      engine::perplexity(*model->session, model->tokenizer, *text, model->session->context(),
                         [&](std::int64_t done, std::int64_t total) {
                           progress.set_total(total);
                           progress.update(done);
                         });
  if (!result) return result.error();
  if (output.json()) {
    output.document(Json{{"perplexity", result->perplexity},
                         {"standard_error", result->standard_error},
                         {"scored_tokens", result->scored_tokens},
                         {"chunks", result->chunks},
                         {"context", model->session->context()}});
    return {};
  }
  output.print(fmt::format("perplexity {:.4f} +- {:.4f} over {} tokens in {} chunks of {}\n",
                           result->perplexity, result->standard_error, result->scored_tokens,
                           result->chunks, model->session->context()));
  return {};
}

}  // namespace

const Verb& perplexity_verb() {
  static const Verb kVerb =
      make_verb("perplexity", "how well a model predicts a text",
                "hone perplexity smollm2 --file book.txt --context 512", declare, run);
  return kVerb;
}

}  // namespace hone::cli

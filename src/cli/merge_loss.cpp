// SPDX-License-Identifier: Apache-2.0
#include "cli/merge_loss.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "cli/program.h"
#include "cli/sample_text.h"
#include "tune/data/dataset.h"

namespace hone::cli {
namespace {

// Enough to tell a hundredth of a nat, and some seconds of work for a small model.
constexpr std::size_t kMostTokens = 4096;
constexpr std::size_t kRows = 32;  // logits of a step are rows of the whole vocabulary

Error stopped() {
  return Error{ErrorCode::kInvalidArgument, "stopped before the end", "", "", "", ""};
}

Status add_losses(engine::Session& session, engine::SequenceId sequence,
                  const tune::Example& example, MeanLoss& sum) {
  const std::span<const formats::TokenId> tokens(example.tokens);
  const auto vocabulary = static_cast<std::size_t>(session.config().vocabulary);
  for (std::size_t at = 0; at + 1 < tokens.size(); at += kRows) {
    const std::size_t count = std::min(kRows, tokens.size() - 1 - at);
    const engine::Request request{sequence, tokens.subspan(at, count), engine::Wanted::kAll};
    const auto logits = session.step(std::span(&request, 1));
    if (!logits) return logits.error();
    for (std::size_t i = 0; i < count; ++i) {
      if (example.learn[at + i + 1] == 0) continue;
      sum.nats -=
          engine::log_probability(logits->subspan(i * vocabulary, vocabulary), tokens[at + i + 1]);
      ++sum.tokens;
    }
    if (interrupted()) return stopped();
  }
  return {};
}

}  // namespace

Result<MergeSample> merge_sample(const LoadedModel& model, const std::string& text,
                                 const std::string& data) {
  if (!text.empty() && !data.empty()) {
    return Error{ErrorCode::kInvalidArgument,
                 "--text and --data are given both",
                 "the command line",
                 "",
                 "one of them",
                 ""};
  }
  if (!text.empty()) {
    auto read = read_text(text);
    if (!read) return read.error();
    return MergeSample{text, *std::move(read), {}};
  }
  if (data.empty()) return MergeSample{"the program's own text", std::string(kSampleText), {}};
  std::optional<formats::ChatTemplate> chat;
  if (!model.tokenizer.vocabulary().chat_template.empty()) {
    auto compiled = chat_template_of(model);
    if (!compiled) return compiled.error();
    chat = *std::move(compiled);
  }
  auto dataset = tune::load_dataset(data, model.tokenizer, chat ? &*chat : nullptr,
                                    {.length = model.session->context()});
  if (!dataset) return dataset.error();
  MergeSample sample{data, "", {}};
  std::size_t tokens = 0;
  for (tune::Example& example : dataset->examples) {
    if (tokens >= kMostTokens) break;
    tokens += example.tokens.size();
    sample.examples.push_back(std::move(example));
  }
  return sample;
}

Result<MeanLoss> mean_loss(const LoadedModel& model, const MergeSample& sample) {
  engine::Session& session = *model.session;
  if (sample.examples.empty()) {
    const auto found = engine::perplexity(session, model.tokenizer, sample.text, session.context());
    if (!found) return found.error();
    if (interrupted()) return stopped();
    return MeanLoss{std::log(found->perplexity), found->scored_tokens};
  }
  MeanLoss sum;
  for (const tune::Example& example : sample.examples) {
    const engine::SequenceId sequence = session.begin();
    const Status status = add_losses(session, sequence, example, sum);
    session.end(sequence);
    if (!status.ok()) return status.error();
  }
  if (sum.tokens > 0) sum.nats /= static_cast<double>(sum.tokens);
  return sum;
}

}  // namespace hone::cli

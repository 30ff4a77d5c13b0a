// The tokenizer of a Hugging Face folder as tokenizer.ggml.* keys.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <unordered_map>

#include "engine/rewrite.h"

namespace hone::engine {
namespace {

using formats::MetaArray;
using formats::Metadata;
using formats::NormalizerStep;
using formats::TextTable;
using formats::TokenId;
using formats::TokenizerModel;
using formats::TokenType;
using formats::Vocabulary;

void set_tokens(Metadata& metadata, const Vocabulary& vocabulary, std::size_t rows) {
  TextTable tokens;
  std::vector<std::int32_t> types;
  tokens.reserve(std::max(rows, vocabulary.size()), vocabulary.tokens.total_bytes());
  for (std::size_t i = 0; i < vocabulary.size(); ++i) {
    const auto id = static_cast<TokenId>(i);
    const bool unknown =
        vocabulary.model != TokenizerModel::kByteLevelBpe && id == vocabulary.unknown;
    const std::string_view text = vocabulary.tokens[i];
    tokens.push_back(text.empty() ? fmt::format("[UNUSED{}]", i) : std::string(text));
    types.push_back(static_cast<std::int32_t>(unknown ? TokenType::kUnknown : vocabulary.types[i]));
  }
  // The embedding often has more rows than there are tokens; readers expect as many of each.
  for (std::size_t i = vocabulary.size(); i < rows; ++i) {
    tokens.push_back(fmt::format("[PAD{}]", i));
    types.push_back(static_cast<std::int32_t>(TokenType::kUnused));
  }
  metadata.set("tokenizer.ggml.tokens", MetaArray(std::move(tokens)));
  metadata.set("tokenizer.ggml.token_type", MetaArray(std::move(types)));
}

void set_merges(Metadata& metadata, const Vocabulary& vocabulary) {
  TextTable merges;
  merges.reserve(vocabulary.merges.size(),
                 vocabulary.merges.total_bytes() + vocabulary.merges.size());
  for (std::size_t i = 0; i < vocabulary.merges.size(); ++i) {
    const std::string_view both = vocabulary.merges[i];
    const std::uint32_t split = vocabulary.merge_splits[i];
    merges.push_back(fmt::format("{} {}", both.substr(0, split), both.substr(split)));
  }
  metadata.set("tokenizer.ggml.merges", MetaArray(std::move(merges)));
}

// SentencePiece merges what gives the token of the highest score; BPE what comes first in its list.
// A token's first merge as a score, negated, gives the same order.
void set_scores(Metadata& metadata, const Vocabulary& vocabulary, std::size_t rows) {
  std::unordered_map<std::string_view, float> first;
  for (std::size_t i = 0; i < vocabulary.merges.size(); ++i) {
    first.emplace(vocabulary.merges[i], -static_cast<float>(i));
  }
  const auto last = -static_cast<float>(vocabulary.merges.size());
  std::vector<float> scores(std::max(rows, vocabulary.size()), last);
  for (std::size_t i = 0; i < vocabulary.size(); ++i) {
    const auto found = first.find(vocabulary.tokens[i]);
    if (found != first.end()) scores[i] = found->second;
    if (vocabulary.types[i] != TokenType::kNormal) scores[i] = 0;
  }
  metadata.set("tokenizer.ggml.scores", MetaArray(std::move(scores)));
}

void set_specials(Metadata& metadata, const Vocabulary& vocabulary) {
  const auto id = [&metadata](const char* name, TokenId token) {
    if (token == formats::kNoToken) return;
    metadata.set(fmt::format("tokenizer.ggml.{}_token_id", name),
                 static_cast<std::uint32_t>(token));
  };
  id("bos", vocabulary.bos);
  id("eos", vocabulary.eos);
  if (vocabulary.eot != vocabulary.eos) id("eot", vocabulary.eot);
  id("unknown", vocabulary.unknown);
  id("padding", vocabulary.padding);
  metadata.set("tokenizer.ggml.add_bos_token", vocabulary.add_bos);
  metadata.set("tokenizer.ggml.add_eos_token", vocabulary.add_eos);
  if (!vocabulary.chat_template.empty()) {
    metadata.set("tokenizer.chat_template", vocabulary.chat_template);
  }
}

Status set_tokenizer(Metadata& metadata, const Vocabulary& vocabulary, std::size_t rows) {
  const bool byte_level = vocabulary.model == TokenizerModel::kByteLevelBpe;
  metadata.set("tokenizer.ggml.model", std::string(byte_level ? "gpt2" : "llama"));
  if (byte_level && vocabulary.pre_tokenizer.empty()) {
    return Error{ErrorCode::kUnsupported,
                 "GGUF has no name for the way this tokenizer cuts text",
                 "tokenizer.json, pre_tokenizer",
                 "steps of no known model",
                 "those of GPT-2, SmolLM, Llama 3 or Qwen 2",
                 "run the folder itself: hone takes it wherever it takes a GGUF file"};
  }
  if (byte_level) metadata.set("tokenizer.ggml.pre", vocabulary.pre_tokenizer);
  set_tokens(metadata, vocabulary, rows);
  if (byte_level) {
    set_merges(metadata, vocabulary);
  } else {
    set_scores(metadata, vocabulary, rows);
    bool prefix = false;
    for (const NormalizerStep& step : vocabulary.normalizer) {
      prefix = prefix || step.kind == NormalizerStep::Kind::kPrepend;
    }
    for (const auto& step : vocabulary.pre_tokenizer_steps) {
      prefix = prefix || step.prepend != formats::PreTokenizerStep::Prepend::kNever;
    }
    metadata.set("tokenizer.ggml.add_space_prefix", prefix);
  }
  set_specials(metadata, vocabulary);
  return {};
}

}  // namespace

Result<Metadata> gguf_metadata(const ModelSource& source) {
  Metadata metadata = source.metadata();
  if (metadata.has("tokenizer.ggml.model")) return metadata;
  const auto vocabulary = source.vocabulary();
  // A model without a tokenizer is still a model.
  if (!vocabulary && vocabulary.error().code == ErrorCode::kNotFound) return metadata;
  if (!vocabulary) return vocabulary.error();
  const formats::TensorRecord* embedding = source.find("token_embd.weight");
  const std::int64_t rows =
      embedding == nullptr || embedding->shape.empty() ? 0 : embedding->shape[0];
  HONE_RETURN_IF_ERROR(set_tokenizer(metadata, *vocabulary, static_cast<std::size_t>(rows)));
  return metadata;
}

}  // namespace hone::engine

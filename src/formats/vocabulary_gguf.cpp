// The vocabulary of a GGUF file, read as llama.cpp reads it.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <limits>
#include <utility>

#include <fmt/format.h>
#include "formats/gguf_metadata.h"
#include "formats/tokenizer_pre.h"
#include "formats/vocabulary.h"

namespace hone::formats {
namespace {

// Texts that models of many families end a turn or an answer with.
constexpr std::array<std::string_view, 10> kEndOfTurn = {
    "<|eot_id|>",      "<|im_end|>", "<|end|>", "<end_of_turn>",         "<|endoftext|>",
    "<|end_of_text|>", "<EOT>",      "_<EOT>",  "<｜end▁of▁sentence｜>", "<end_of_utterance>",
};
constexpr std::array<std::string_view, 5> kEndOfAnswer = {"</s>", "<|eom_id|>", "<|return|>",
                                                          "<|call|>", "[EOS]"};

Error lengths_differ(std::string_view key, std::size_t found, std::size_t expected) {
  return Error{ErrorCode::kCorrupt,
               "the tokenizer's arrays have different lengths",
               std::string(key),
               fmt::format("{} items", found),
               fmt::format("{}, as tokenizer.ggml.tokens has", expected),
               ""};
}

Status read_tokens(const Metadata& metadata, Vocabulary& vocabulary) {
  const auto held = metadata.texts("tokenizer.ggml.tokens");
  if (!held) return held.error();
  const TextTable* texts = *held;
  constexpr auto kMostTokens = std::numeric_limits<TokenId>::max();
  if (texts->size() > static_cast<std::size_t>(kMostTokens)) {
    return Error{ErrorCode::kOutOfRange,
                 "the vocabulary is too large",
                 "tokenizer.ggml.tokens",
                 fmt::format("{} tokens", texts->size()),
                 fmt::format("at most {}", kMostTokens),
                 ""};
  }
  vocabulary.tokens = *texts;

  vocabulary.types.assign(texts->size(), TokenType::kNormal);
  if (metadata.has("tokenizer.ggml.token_type")) {
    const auto types = metadata.integers("tokenizer.ggml.token_type");
    if (!types) return types.error();
    if (types->size() != texts->size()) {
      return lengths_differ("tokenizer.ggml.token_type", types->size(), texts->size());
    }
    for (std::size_t i = 0; i < types->size(); ++i) {
      const std::int64_t type = (*types)[i];
      if (type < 0 || type > 6) {
        return Error{ErrorCode::kCorrupt,
                     "a token has an unknown type",
                     fmt::format("tokenizer.ggml.token_type, item {}", i),
                     fmt::format("{}", type),
                     "1 to 6",
                     ""};
      }
      if (type > 0) vocabulary.types[i] = static_cast<TokenType>(type);
    }
  }
  if (metadata.has("tokenizer.ggml.scores")) {
    auto scores = metadata.floats("tokenizer.ggml.scores");
    if (!scores) return scores.error();
    if (scores->size() != texts->size()) {
      return lengths_differ("tokenizer.ggml.scores", scores->size(), texts->size());
    }
    vocabulary.scores = std::move(*scores);
  }
  return {};
}

Status read_merges(const Metadata& metadata, Vocabulary& vocabulary) {
  const auto held = metadata.texts("tokenizer.ggml.merges");
  if (!held) return held.error();
  const TextTable* merges = *held;
  vocabulary.merges.reserve(merges->size(), merges->total_bytes());
  vocabulary.merge_splits.reserve(merges->size());
  std::string both;
  for (std::size_t i = 0; i < merges->size(); ++i) {
    const std::string_view merge = (*merges)[i];
    const std::size_t space = merge.find(' ', 1);
    if (space == merge.npos) {
      return Error{ErrorCode::kCorrupt,
                   "a merge has no two parts",
                   fmt::format("tokenizer.ggml.merges, item {}", i),
                   fmt::format("'{}'", merge),
                   "'left right'",
                   ""};
    }
    both.assign(merge.substr(0, space)).append(merge.substr(space + 1));
    vocabulary.merges.push_back(both);
    vocabulary.merge_splits.push_back(static_cast<std::uint32_t>(space));
  }
  return {};
}

Status read_id(const Metadata& metadata, std::string_view key, TokenId otherwise, std::size_t size,
               TokenId& id) {
  const auto value = metadata.integer_or(key, otherwise);
  if (!value) return value.error();
  const std::int64_t found = *value;
  // Some converters write 0xFFFFFFFF for "none".
  if (found == -1 || found == 0xFFFFFFFF) {
    id = kNoToken;
    return {};
  }
  if (found < 0 || found >= static_cast<std::int64_t>(size)) {
    if (!metadata.has(key)) return {};  // a default that this vocabulary is too small for
    return Error{ErrorCode::kCorrupt,
                 "a special token's id is outside of the vocabulary",
                 std::string(key),
                 fmt::format("{}", found),
                 fmt::format("below {}", size),
                 ""};
  }
  id = static_cast<TokenId>(found);
  return {};
}

Status read_specials(const Metadata& metadata, Vocabulary& vocabulary) {
  const bool scored = vocabulary.model == TokenizerModel::kSentencePiece;
  const std::size_t size = vocabulary.size();
  const auto id = [&](const char* name, TokenId otherwise, TokenId& out) {
    return read_id(metadata, fmt::format("tokenizer.ggml.{}_token_id", name), otherwise, size, out);
  };
  HONE_RETURN_IF_ERROR(id("bos", scored ? 1 : kNoToken, vocabulary.bos));
  HONE_RETURN_IF_ERROR(id("eos", scored ? 2 : kNoToken, vocabulary.eos));
  HONE_RETURN_IF_ERROR(id("eot", kNoToken, vocabulary.eot));
  HONE_RETURN_IF_ERROR(id("unknown", scored ? 0 : kNoToken, vocabulary.unknown));
  HONE_RETURN_IF_ERROR(id("padding", kNoToken, vocabulary.padding));

  const bool llama3 =
      vocabulary.pre_tokenizer == "llama-bpe" || vocabulary.pre_tokenizer == "llama3" ||
      vocabulary.pre_tokenizer == "llama-v3" || vocabulary.pre_tokenizer == "falcon3";
  vocabulary.ignore_merges = llama3;
  vocabulary.byte_fallback = scored;
  const auto add_bos = metadata.boolean_or("tokenizer.ggml.add_bos_token", scored || llama3);
  if (!add_bos) return add_bos.error();
  const auto add_eos = metadata.boolean_or("tokenizer.ggml.add_eos_token", false);
  if (!add_eos) return add_eos.error();
  const auto add_space = metadata.boolean_or("tokenizer.ggml.add_space_prefix", scored);
  if (!add_space) return add_space.error();
  vocabulary.add_bos = *add_bos;
  vocabulary.add_eos = *add_eos;
  vocabulary.add_space_prefix = *add_space && scored;
  vocabulary.strip_decoded_space = vocabulary.add_space_prefix;
  return {};
}

}  // namespace

void find_end_of_generation(Vocabulary& vocabulary) {
  std::vector<TokenId>& ends = vocabulary.end_of_generation;
  const auto add = [&](TokenId id) {
    if (id != kNoToken && std::find(ends.begin(), ends.end(), id) == ends.end()) ends.push_back(id);
  };
  add(vocabulary.eos);
  add(vocabulary.eot);
  for (std::size_t i = 0; i < vocabulary.size(); ++i) {
    const std::string_view token = vocabulary.tokens[i];
    // All of them begin with one of three characters, which rules nearly every token out.
    if (token.empty() || (token[0] != '<' && token[0] != '_' && token[0] != '[')) continue;
    const auto* turn = std::find(kEndOfTurn.begin(), kEndOfTurn.end(), token);
    const auto* answer = std::find(kEndOfAnswer.begin(), kEndOfAnswer.end(), token);
    if (turn == kEndOfTurn.end() && answer == kEndOfAnswer.end()) continue;
    const auto id = static_cast<TokenId>(i);
    if (turn != kEndOfTurn.end() && vocabulary.eot == kNoToken) vocabulary.eot = id;
    // Converters sometimes leave them as normal tokens, with which a chat would never end.
    vocabulary.types[i] = TokenType::kControl;
    add(id);
  }
}

Result<Vocabulary> vocabulary_from_gguf(const Metadata& metadata) {
  if (!metadata.has("tokenizer.ggml.model")) {
    return Error{ErrorCode::kNotFound,
                 "the file holds no tokenizer",
                 metadata.source(),
                 "no key tokenizer.ggml.model",
                 "a tokenizer among the metadata",
                 "use a GGUF file that was converted with its tokenizer"};
  }
  const auto model = metadata.text("tokenizer.ggml.model");
  if (!model) return model.error();
  Vocabulary vocabulary;
  if (*model == "llama") {
    vocabulary.model = TokenizerModel::kSentencePiece;
  } else if (*model == "gpt2") {
    vocabulary.model = TokenizerModel::kByteLevelBpe;
  } else {
    return Error{ErrorCode::kUnsupported,
                 "the file's tokenizer is of a kind hone does not know",
                 metadata.source() + ", tokenizer.ggml.model",
                 fmt::format("'{}'", *model),
                 "'gpt2' (byte-level BPE) or 'llama' (SentencePiece)",
                 ""};
  }
  HONE_RETURN_IF_ERROR(read_tokens(metadata, vocabulary));
  const auto pre = metadata.text_or("tokenizer.ggml.pre", "");
  if (!pre) return pre.error();
  if (vocabulary.model == TokenizerModel::kByteLevelBpe) {
    HONE_RETURN_IF_ERROR(read_merges(metadata, vocabulary));
    auto steps = pre_tokenizer_steps(*pre);
    if (!steps) return steps.error().in(metadata.source());
    vocabulary.pre_tokenizer = *pre;
    vocabulary.pre_tokenizer_steps = std::move(*steps);
  } else if (vocabulary.scores.empty()) {
    return Error{ErrorCode::kNotFound,
                 "a SentencePiece vocabulary without scores",
                 metadata.source() + ", tokenizer.ggml.scores",
                 "no such key",
                 "one score a token",
                 ""};
  }
  HONE_RETURN_IF_ERROR(read_specials(metadata, vocabulary));
  find_end_of_generation(vocabulary);
  for (std::size_t i = 0; i < vocabulary.size(); ++i) {
    const TokenType type = vocabulary.types[i];
    const bool special = type == TokenType::kControl || type == TokenType::kUnknown;
    if (special || type == TokenType::kUserDefined) {
      AddedToken token;
      token.id = static_cast<TokenId>(i);
      token.special = special;
      vocabulary.added.push_back(token);
    }
  }
  const auto chat_template = metadata.text_or("tokenizer.chat_template", "");
  if (!chat_template) return chat_template.error();
  vocabulary.chat_template = *chat_template;
  return vocabulary;
}

}  // namespace hone::formats

// A vocabulary as tokenizer.json and tokenizer_config.json, as transformers reads them.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "engine/export.h"

namespace hone::engine {
namespace {

using Json = nlohmann::ordered_json;
using formats::PreTokenizerStep;
using formats::TokenId;
using formats::TokenizerModel;
using formats::TokenType;
using formats::Vocabulary;

constexpr const char* kSpaceMark = "\u2581";

std::string text_of(const Vocabulary& vocabulary, TokenId id) {
  return std::string(vocabulary.tokens[static_cast<std::size_t>(id)]);
}

Json vocabulary_object(const Vocabulary& vocabulary) {
  Json tokens = Json::object();
  // Assigned in order; an added token may share its text with none of them.
  auto& object = tokens.get_ref<Json::object_t&>();
  object.reserve(vocabulary.size());
  for (std::size_t i = 0; i < vocabulary.size(); ++i) {
    object.emplace_back(std::string(vocabulary.tokens[i]), i);
  }
  return tokens;
}

// SentencePiece knows scores of tokens, tokenizer.json a list of merges: every way to put a token
// together of two others, those of the best token first.
Json merges_of_scores(const Vocabulary& vocabulary) {
  std::unordered_map<std::string_view, std::size_t> ids;
  for (std::size_t i = 0; i < vocabulary.size(); ++i) {
    if (vocabulary.types[i] == TokenType::kNormal) ids.emplace(vocabulary.tokens[i], i);
  }
  struct Merge {
    float score;
    std::size_t left;
    std::size_t right;
  };
  std::vector<Merge> merges;
  for (std::size_t i = 0; i < vocabulary.size(); ++i) {
    if (vocabulary.types[i] != TokenType::kNormal) continue;
    const std::string_view token = vocabulary.tokens[i];
    for (std::size_t at = 1; at < token.size(); ++at) {
      if ((static_cast<unsigned char>(token[at]) & 0xC0) == 0x80) continue;
      const auto left = ids.find(token.substr(0, at));
      const auto right = ids.find(token.substr(at));
      if (left == ids.end() || right == ids.end()) continue;
      merges.push_back({vocabulary.scores[i], left->second, right->second});
    }
  }
  std::stable_sort(merges.begin(), merges.end(),
                   [](const Merge& a, const Merge& b) { return a.score > b.score; });
  Json list = Json::array();
  for (const Merge& merge : merges) {
    list.push_back({vocabulary.tokens[merge.left], vocabulary.tokens[merge.right]});
  }
  return list;
}

Json merges_of_list(const Vocabulary& vocabulary) {
  Json list = Json::array();
  for (std::size_t i = 0; i < vocabulary.merges.size(); ++i) {
    const std::string_view both = vocabulary.merges[i];
    const std::uint32_t split = vocabulary.merge_splits[i];
    list.push_back({both.substr(0, split), both.substr(split)});
  }
  return list;
}

Json added_tokens(const Vocabulary& vocabulary) {
  Json list = Json::array();
  for (const formats::AddedToken& token : vocabulary.added) {
    list.push_back({{"id", token.id},
                    {"content", text_of(vocabulary, token.id)},
                    {"single_word", token.single_word},
                    {"lstrip", token.strip_left},
                    {"rstrip", token.strip_right},
                    {"normalized", token.normalized},
                    {"special", token.special}});
  }
  return list;
}

Json pre_tokenizer(const Vocabulary& vocabulary) {
  if (vocabulary.model != TokenizerModel::kByteLevelBpe) return nullptr;
  Json steps = Json::array();
  for (const PreTokenizerStep& step : vocabulary.pre_tokenizer_steps) {
    if (step.kind == PreTokenizerStep::Kind::kDigits) {
      steps.push_back({{"type", "Digits"}, {"individual_digits", step.individual}});
    } else {
      static constexpr const char* kBehaviors[] = {"Isolated", "Removed", "MergedWithPrevious",
                                                   "MergedWithNext"};
      steps.push_back({{"type", "Split"},
                       {"pattern", {{"Regex", step.regex}}},
                       {"behavior", kBehaviors[static_cast<std::size_t>(step.behavior)]},
                       {"invert", step.invert}});
    }
  }
  steps.push_back({{"type", "ByteLevel"},
                   {"add_prefix_space", false},
                   {"trim_offsets", true},
                   {"use_regex", false}});
  return {{"type", "Sequence"}, {"pretokenizers", steps}};
}

Json replace(const char* pattern, const char* content) {
  return {{"type", "Replace"}, {"pattern", {{"String", pattern}}}, {"content", content}};
}

Json normalizer(const Vocabulary& vocabulary) {
  if (vocabulary.model == TokenizerModel::kByteLevelBpe) return nullptr;
  Json steps = Json::array();
  if (vocabulary.add_space_prefix) steps.push_back({{"type", "Prepend"}, {"prepend", kSpaceMark}});
  steps.push_back(replace(" ", kSpaceMark));
  return {{"type", "Sequence"}, {"normalizers", steps}};
}

Json decoder(const Vocabulary& vocabulary) {
  if (vocabulary.model == TokenizerModel::kByteLevelBpe) {
    return {{"type", "ByteLevel"},
            {"add_prefix_space", false},
            {"trim_offsets", true},
            {"use_regex", false}};
  }
  Json steps =
      Json::array({replace(kSpaceMark, " "), {{"type", "ByteFallback"}}, {{"type", "Fuse"}}});
  if (vocabulary.strip_decoded_space) {
    steps.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  }
  return {{"type", "Sequence"}, {"decoders", steps}};
}

Json post_processor(const Vocabulary& vocabulary) {
  Json single = Json::array();
  Json pair = Json::array();
  Json specials = Json::object();
  const auto add = [&](bool wanted, TokenId id) {
    if (!wanted || id == formats::kNoToken) return;
    const std::string text = text_of(vocabulary, id);
    single.push_back({{"SpecialToken", {{"id", text}, {"type_id", 0}}}});
    pair.push_back({{"SpecialToken", {{"id", text}, {"type_id", 0}}}});
    specials[text] = {{"id", text}, {"ids", {id}}, {"tokens", {text}}};
  };
  add(vocabulary.add_bos, vocabulary.bos);
  single.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
  pair.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
  pair.push_back({{"Sequence", {{"id", "B"}, {"type_id", 0}}}});
  add(vocabulary.add_eos, vocabulary.eos);
  if (specials.empty()) return nullptr;
  return {{"type", "TemplateProcessing"},
          {"single", single},
          {"pair", pair},
          {"special_tokens", specials}};
}

}  // namespace

Result<TokenizerFiles> tokenizer_files(const Vocabulary& vocabulary) {
  if (vocabulary.model == TokenizerModel::kCharacterBpe) {
    return Error{ErrorCode::kUnsupported,  "this tokenizer is a tokenizer.json already", "", "", "",
                 "copy it from the folder"};
  }
  const bool byte_level = vocabulary.model == TokenizerModel::kByteLevelBpe;
  Json model{{"type", "BPE"},
             {"dropout", nullptr},
             {"unk_token", nullptr},
             {"continuing_subword_prefix", nullptr},
             {"end_of_word_suffix", nullptr},
             {"fuse_unk", !byte_level},
             {"byte_fallback", !byte_level},
             {"ignore_merges", vocabulary.ignore_merges}};
  if (!byte_level && vocabulary.unknown != formats::kNoToken) {
    model["unk_token"] = text_of(vocabulary, vocabulary.unknown);
  }
  model["vocab"] = vocabulary_object(vocabulary);
  model["merges"] = byte_level ? merges_of_list(vocabulary) : merges_of_scores(vocabulary);
  const Json tokenizer{{"version", "1.0"},
                       {"truncation", nullptr},
                       {"padding", nullptr},
                       {"added_tokens", added_tokens(vocabulary)},
                       {"normalizer", normalizer(vocabulary)},
                       {"pre_tokenizer", pre_tokenizer(vocabulary)},
                       {"post_processor", post_processor(vocabulary)},
                       {"decoder", decoder(vocabulary)},
                       {"model", model}};
  Json config{{"tokenizer_class", "PreTrainedTokenizerFast"},
              {"clean_up_tokenization_spaces", false},
              {"model_max_length", 1'000'000'000}};
  const auto name = [&](const char* key, TokenId id) {
    if (id != formats::kNoToken) config[key] = text_of(vocabulary, id);
  };
  name("bos_token", vocabulary.bos);
  name("eos_token", vocabulary.eos);
  name("unk_token", vocabulary.unknown);
  name("pad_token", vocabulary.padding);
  if (!vocabulary.chat_template.empty()) config["chat_template"] = vocabulary.chat_template;
  constexpr auto kReplace = Json::error_handler_t::replace;
  return TokenizerFiles{tokenizer.dump(1, ' ', false, kReplace) + "\n",
                        config.dump(2, ' ', false, kReplace) + "\n"};
}

}  // namespace hone::engine

// The vocabulary of Hugging Face's tokenizer.json: model, added tokens, and the steps around them.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include "formats/tokenizer_pre.h"
#include "formats/tokenizer_utf8.h"
#include "formats/vocabulary.h"

namespace hone::formats {
namespace {

using Json = nlohmann::json;
constexpr std::size_t kMostGaps = 65'536;  // ids without a token, which some models leave

const Json kNull;

const Json& member(const Json& object, const char* key) {
  if (!object.is_object()) return kNull;
  const auto found = object.find(key);
  return found == object.end() ? kNull : *found;
}

std::string text_or(const Json& value, std::string otherwise = {}) {
  return value.is_string() ? value.get<std::string>() : otherwise;
}

bool flag_or(const Json& value, bool otherwise) {
  return value.is_boolean() ? value.get<bool>() : otherwise;
}

std::string shortened(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace).substr(0, 120);
}

Error corrupt(std::string where, const Json& found, std::string expected) {
  return Error{ErrorCode::kCorrupt,
               "the tokenizer is not as tokenizer.json files are",
               "tokenizer.json, " + std::move(where),
               shortened(found),
               std::move(expected),
               ""};
}

Error unsupported(std::string where, const Json& found, std::string known) {
  return Error{ErrorCode::kUnsupported,
               "the tokenizer has a component that hone does not know",
               "tokenizer.json, " + std::move(where),
               shortened(found),
               std::move(known),
               "use a GGUF file of the model, if there is one"};
}

// Calls visit(step, path) for a component, or for each of a Sequence's, nested ones too.
template <typename Visit>
Status visit_components(const Json& component, const char* list, const std::string& path,
                        Visit visit, int depth = 0) {
  if (component.is_null()) return {};
  if (!component.is_object()) return corrupt(path, component, "an object or null");
  if (text_or(member(component, "type")) != "Sequence") return visit(component, path);
  const Json& steps = member(component, list);
  if (!steps.is_array() || depth > 8) return corrupt(path + "/" + list, steps, "a list");
  for (std::size_t i = 0; i < steps.size(); ++i) {
    HONE_RETURN_IF_ERROR(
        visit_components(steps[i], list, fmt::format("{}/{}/{}", path, list, i), visit, depth + 1));
  }
  return {};
}

struct Reader {
  Vocabulary vocabulary;
  std::vector<std::pair<TokenId, std::string>> texts;  // id and text, of model and added tokens
  bool byte_level = false;

  Status read_id(const Json& value, const std::string& path, TokenId& id);
  Status read_model(const Json& model);
  Status read_merges(const Json& merges);
  Status read_added(const Json& added);
  Status place_tokens();
  Status read_normalizer(const Json& step, const std::string& path);
  Status read_pre_tokenizer(const Json& step, const std::string& path);
  Status read_split(const Json& step, const std::string& path);
  Status read_post_processor(const Json& step, const std::string& path);
  Status read_decoder(const Json& step, const std::string& path);
  TokenId find(const std::string& text) const;
  void read_config(const Json& config);
};

Status Reader::read_id(const Json& value, const std::string& path, TokenId& id) {
  if (!value.is_number_unsigned() || value.get<std::uint64_t>() > 0x7FFFFFFF) {
    return corrupt(path, value, "a token id");
  }
  id = static_cast<TokenId>(value.get<std::uint64_t>());
  return {};
}

Status Reader::read_model(const Json& model) {
  const std::string type = text_or(member(model, "type"), "BPE");
  if (type != "BPE") return unsupported("model/type", member(model, "type"), "BPE");
  for (const char* affix : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!text_or(member(model, affix)).empty()) {
      return unsupported(fmt::format("model/{}", affix), member(model, affix), "none");
    }
  }
  const Json& tokens = member(model, "vocab");
  if (!tokens.is_object()) return corrupt("model/vocab", tokens, "an object of texts and ids");
  texts.reserve(tokens.size());
  for (const auto& [text, value] : tokens.items()) {
    TokenId id = kNoToken;
    HONE_RETURN_IF_ERROR(read_id(value, "model/vocab", id));
    texts.emplace_back(id, text);
  }
  vocabulary.byte_fallback = flag_or(member(model, "byte_fallback"), false);
  vocabulary.ignore_merges = flag_or(member(model, "ignore_merges"), false);
  vocabulary.fuse_unknown = flag_or(member(model, "fuse_unk"), false);
  vocabulary.emit_unknown = member(model, "unk_token").is_string();
  return read_merges(member(model, "merges"));
}

Status Reader::read_merges(const Json& merges) {
  if (!merges.is_array()) return corrupt("model/merges", merges, "a list");
  std::string left;
  std::string right;
  for (std::size_t i = 0; i < merges.size(); ++i) {
    const Json& merge = merges[i];
    bool whole = false;
    if (merge.is_string()) {
      const auto& both = merge.get_ref<const std::string&>();
      const std::size_t space = both.find(' ');
      whole = space != both.npos && both.find(' ', space + 1) == both.npos;
      left = both.substr(0, space);
      right = whole ? both.substr(space + 1) : "";
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
               merge[1].is_string()) {
      whole = true;
      left = merge[0].get<std::string>();
      right = merge[1].get<std::string>();
    }
    if (!whole) return corrupt(fmt::format("model/merges/{}", i), merge, "'left right' or a pair");
    vocabulary.merges.push_back(left + right);
    vocabulary.merge_splits.push_back(static_cast<std::uint32_t>(left.size()));
  }
  return {};
}

Status Reader::read_added(const Json& added) {
  if (added.is_null()) return {};
  if (!added.is_array()) return corrupt("added_tokens", added, "a list");
  for (std::size_t i = 0; i < added.size(); ++i) {
    const std::string path = fmt::format("added_tokens/{}", i);
    const Json& content = member(added[i], "content");
    if (!content.is_string()) return corrupt(path, added[i], "an object with content and id");
    AddedToken token;
    HONE_RETURN_IF_ERROR(read_id(member(added[i], "id"), path + "/id", token.id));
    token.special = flag_or(member(added[i], "special"), false);
    token.strip_left = flag_or(member(added[i], "lstrip"), false);
    token.strip_right = flag_or(member(added[i], "rstrip"), false);
    token.single_word = flag_or(member(added[i], "single_word"), false);
    token.normalized = flag_or(member(added[i], "normalized"), !token.special);
    texts.emplace_back(token.id, content.get<std::string>());
    vocabulary.added.push_back(token);
  }
  return {};
}

// Sorts the texts by id; an added token's text replaces the model's of the same id.
Status Reader::place_tokens() {
  if (texts.empty()) return corrupt("model/vocab", kNull, "at least one token");
  std::stable_sort(texts.begin(), texts.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  const auto size = static_cast<std::size_t>(texts.back().first) + 1;
  if (size > texts.size() + kMostGaps) {
    return corrupt("model/vocab", texts.back().first,
                   fmt::format("ids below {}", texts.size() + kMostGaps));
  }
  vocabulary.types.assign(size, TokenType::kUnused);
  std::size_t next = 0;
  for (std::size_t id = 0; id < size; ++id) {
    std::string_view text;
    for (; next < texts.size() && static_cast<std::size_t>(texts[next].first) == id; ++next) {
      text = texts[next].second;
      vocabulary.types[id] = TokenType::kNormal;
    }
    const bool is_byte = vocabulary.byte_fallback && text.size() == 6 && text.starts_with("<0x");
    if (is_byte) vocabulary.types[id] = TokenType::kByte;
    vocabulary.tokens.push_back(text);
  }
  for (const AddedToken& token : vocabulary.added) {
    vocabulary.types[token.id] = token.special ? TokenType::kControl : TokenType::kUserDefined;
  }
  return {};
}

Status Reader::read_normalizer(const Json& step, const std::string& path) {
  using Kind = NormalizerStep::Kind;
  const std::string type = text_or(member(step, "type"));
  NormalizerStep made;
  if (type == "NFC") {
    made.kind = Kind::kNfc;
  } else if (type == "NFD") {
    made.kind = Kind::kNfd;
  } else if (type == "NFKC") {
    made.kind = Kind::kNfkc;
  } else if (type == "NFKD") {
    made.kind = Kind::kNfkd;
  } else if (type == "Prepend") {
    made.kind = Kind::kPrepend;
    made.content = text_or(member(step, "prepend"));
  } else if (type == "Replace" && member(member(step, "pattern"), "String").is_string()) {
    made.kind = Kind::kReplace;
    made.pattern = text_or(member(member(step, "pattern"), "String"));
    made.content = text_or(member(step, "content"));
  } else {
    return unsupported(path, step, "NFC, NFD, NFKC, NFKD, Prepend, Replace of a String");
  }
  vocabulary.normalizer.push_back(std::move(made));
  return {};
}

Status Reader::read_split(const Json& step, const std::string& path) {
  using Behavior = PreTokenizerStep::Behavior;
  PreTokenizerStep made;
  const Json& pattern = member(step, "pattern");
  if (member(pattern, "Regex").is_string()) {
    made.regex = text_or(member(pattern, "Regex"));
  } else if (member(pattern, "String").is_string()) {
    for (const char byte : text_or(member(pattern, "String"))) {
      const auto code = static_cast<unsigned char>(byte);
      const bool plain = code >= 0x80 || (code >= '0' && code <= '9') ||
                         (code >= 'a' && code <= 'z') || (code >= 'A' && code <= 'Z');
      made.regex += plain ? std::string(1, byte) : fmt::format("\\x{:02x}", code);
    }
  } else {
    return corrupt(path + "/pattern", pattern, "a Regex or a String");
  }
  const std::string behavior = text_or(member(step, "behavior"));
  if (behavior == "Removed") {
    made.behavior = Behavior::kRemoved;
  } else if (behavior == "MergedWithPrevious") {
    made.behavior = Behavior::kMergedWithPrevious;
  } else if (behavior == "MergedWithNext") {
    made.behavior = Behavior::kMergedWithNext;
  } else if (behavior != "Isolated") {
    return unsupported(path + "/behavior", member(step, "behavior"),
                       "Isolated, Removed, MergedWithPrevious, MergedWithNext");
  }
  made.invert = flag_or(member(step, "invert"), false);
  vocabulary.pre_tokenizer_steps.push_back(std::move(made));
  return {};
}

Status Reader::read_pre_tokenizer(const Json& step, const std::string& path) {
  using Prepend = PreTokenizerStep::Prepend;
  const std::string type = text_or(member(step, "type"));
  std::vector<PreTokenizerStep>& steps = vocabulary.pre_tokenizer_steps;
  if (type == "Split") return read_split(step, path);
  PreTokenizerStep made;
  if (type == "ByteLevel") {
    byte_level = true;
    if (flag_or(member(step, "add_prefix_space"), false)) {
      if (!steps.empty()) return unsupported(path, step, "add_prefix_space in the first step only");
      NormalizerStep prefix;
      prefix.kind = NormalizerStep::Kind::kPrefixSpace;
      vocabulary.normalizer.push_back(std::move(prefix));
    }
    if (!flag_or(member(step, "use_regex"), true)) return {};
    made.regex = std::string(kGpt2Pattern);
  } else if (type == "Digits") {
    made.kind = PreTokenizerStep::Kind::kDigits;
    made.individual = flag_or(member(step, "individual_digits"), false);
  } else if (type == "Metaspace" && steps.empty()) {
    if (text_or(member(step, "replacement"), std::string(kSpaceMark)) != kSpaceMark) {
      return unsupported(path + "/replacement", member(step, "replacement"), "U+2581");
    }
    const bool old_prefix = flag_or(member(step, "add_prefix_space"), true);
    const std::string scheme =
        text_or(member(step, "prepend_scheme"), old_prefix ? "always" : "never");
    made.kind = PreTokenizerStep::Kind::kMetaspace;
    made.split = flag_or(member(step, "split"), true);
    made.prepend = scheme == "always"  ? Prepend::kAlways
                   : scheme == "first" ? Prepend::kFirst
                                       : Prepend::kNever;
  } else {
    return unsupported(path, step, "ByteLevel, Split, Digits, Metaspace as the first, Sequence");
  }
  steps.push_back(std::move(made));
  return {};
}

TokenId Reader::find(const std::string& text) const {
  for (const auto& [id, token] : texts) {
    if (token == text) return id;
  }
  return kNoToken;
}

Status Reader::read_post_processor(const Json& step, const std::string& path) {
  const std::string type = text_or(member(step, "type"));
  if (type == "ByteLevel") return {};
  if (type != "TemplateProcessing") {
    return unsupported(path, step, "ByteLevel, TemplateProcessing, Sequence");
  }
  bool before = true;
  const Json& single = member(step, "single");
  if (!single.is_array()) return corrupt(path + "/single", single, "a list");
  for (const Json& item : single) {
    if (item.is_object() && item.contains("Sequence")) {
      before = false;
      continue;
    }
    const std::string name = text_or(member(member(item, "SpecialToken"), "id"));
    const TokenId id = find(name);
    bool& adds = before ? vocabulary.add_bos : vocabulary.add_eos;
    if (id == kNoToken || adds) {
      return unsupported(path + "/single", single, "at most one known token before and one after");
    }
    adds = true;
    (before ? vocabulary.bos : vocabulary.eos) = id;
  }
  return {};
}

Status Reader::read_decoder(const Json& step, const std::string& path) {
  const std::string type = text_or(member(step, "type"));
  if (type == "ByteLevel" || type == "ByteFallback" || type == "Fuse") {
    byte_level = byte_level || type == "ByteLevel";
  } else if (type == "Replace") {
    if (text_or(member(member(step, "pattern"), "String")) != kSpaceMark ||
        text_or(member(step, "content")) != " ") {
      return unsupported(path, step, "Replace of U+2581 by a space");
    }
  } else if (type == "Strip") {
    const Json& start = member(step, "start");
    const Json& stop = member(step, "stop");
    if (text_or(member(step, "content")) != " " || start != Json(1) || stop != Json(0)) {
      return unsupported(path, step, "Strip of one space at the start");
    }
    vocabulary.strip_decoded_space = true;
  } else if (type == "Metaspace") {
    vocabulary.strip_decoded_space = text_or(member(step, "prepend_scheme"), "always") != "never" &&
                                     flag_or(member(step, "add_prefix_space"), true);
  } else {
    return unsupported(path, step, "ByteLevel, ByteFallback, Fuse, Replace, Strip, Metaspace");
  }
  return {};
}

void Reader::read_config(const Json& config) {
  const auto token = [&](const char* key, TokenId& id) {
    const Json& value = member(config, key);
    const std::string text = text_or(value.is_object() ? member(value, "content") : value);
    const TokenId found = text.empty() ? kNoToken : find(text);
    if (found != kNoToken) id = found;
  };
  // What the post-processor puts in front and behind stays.
  if (!vocabulary.add_bos) token("bos_token", vocabulary.bos);
  if (!vocabulary.add_eos) token("eos_token", vocabulary.eos);
  token("pad_token", vocabulary.padding);
  const Json& chat = member(config, "chat_template");
  vocabulary.chat_template = text_or(chat);
  if (!chat.is_array()) return;
  for (const Json& named : chat) {
    if (text_or(member(named, "name")) == "default") {
      vocabulary.chat_template = text_or(member(named, "template"));
    }
  }
}

}  // namespace

Result<Vocabulary> vocabulary_from_tokenizer_json(std::string_view tokenizer_json,
                                                  std::string_view tokenizer_config_json) {
  const Json root = Json::parse(tokenizer_json, nullptr, false);
  if (!root.is_object()) {
    return Error{ErrorCode::kCorrupt, "the tokenizer is no JSON object",
                 "tokenizer.json",    fmt::format("'{}'", tokenizer_json.substr(0, 40)),
                 "'{ … }'",           "download the file again: it may be truncated"};
  }
  Reader reader;
  Vocabulary& vocabulary = reader.vocabulary;
  vocabulary.unicode = UnicodeEdition::k16;
  vocabulary.added_leftmost = true;
  HONE_RETURN_IF_ERROR(reader.read_model(member(root, "model")));
  HONE_RETURN_IF_ERROR(reader.read_added(member(root, "added_tokens")));
  HONE_RETURN_IF_ERROR(
      visit_components(member(root, "normalizer"), "normalizers", "normalizer",
                       [&](const Json& s, const auto& p) { return reader.read_normalizer(s, p); }));
  HONE_RETURN_IF_ERROR(visit_components(
      member(root, "pre_tokenizer"), "pretokenizers", "pre_tokenizer",
      [&](const Json& s, const auto& p) { return reader.read_pre_tokenizer(s, p); }));
  HONE_RETURN_IF_ERROR(visit_components(
      member(root, "post_processor"), "processors", "post_processor",
      [&](const Json& s, const auto& p) { return reader.read_post_processor(s, p); }));
  HONE_RETURN_IF_ERROR(
      visit_components(member(root, "decoder"), "decoders", "decoder",
                       [&](const Json& s, const auto& p) { return reader.read_decoder(s, p); }));
  vocabulary.model =
      reader.byte_level ? TokenizerModel::kByteLevelBpe : TokenizerModel::kCharacterBpe;
  const Json& unknown = member(member(root, "model"), "unk_token");
  if (unknown.is_string()) vocabulary.unknown = reader.find(unknown.get<std::string>());
  if (!tokenizer_config_json.empty()) {
    const Json config = Json::parse(tokenizer_config_json, nullptr, false);
    if (!config.is_object()) {
      return Error{ErrorCode::kCorrupt,
                   "the tokenizer's configuration is no JSON object",
                   "tokenizer_config.json",
                   fmt::format("'{}'", tokenizer_config_json.substr(0, 40)),
                   "'{ … }'",
                   ""};
    }
    reader.read_config(config);
  }
  HONE_RETURN_IF_ERROR(reader.place_tokens());
  vocabulary.pre_tokenizer = std::string(pre_tokenizer_name(vocabulary.pre_tokenizer_steps));
  find_end_of_generation(vocabulary);
  return std::move(reader.vocabulary);
}

}  // namespace hone::formats

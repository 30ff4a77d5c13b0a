// The tokenizer: special tokens, normalization, pieces, merges, in this order; and back.
// SPDX-License-Identifier: Apache-2.0
#include "formats/tokenizer.h"

#include <algorithm>
#include <array>
#include <utility>

#include <fmt/format.h>
#include "formats/tokenizer_bpe.h"
#include "formats/tokenizer_normalize.h"
#include "formats/tokenizer_pre.h"
#include "formats/tokenizer_sentencepiece.h"
#include "formats/tokenizer_special.h"
#include "formats/tokenizer_table.h"
#include "formats/tokenizer_utf8.h"

namespace hone::formats {
namespace {

// Offsets are 32 bits; a longer text is taken in stretches, each tokenized alone.
constexpr std::size_t kLongestStretch = std::size_t{1} << 30;

// "<0x0A>" is byte 10; -1 for every other text.
int byte_of_token(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
  int byte = 0;
  for (const char digit : token.substr(3, 2)) {
    int value = 0;
    if (digit >= '0' && digit <= '9') {
      value = digit - '0';
    } else if (digit >= 'A' && digit <= 'F') {
      value = digit - 'A' + 10;
    } else {
      return -1;
    }
    byte = byte * 16 + value;
  }
  return byte;
}

// False if a character is outside of the alphabet: then the token stands for its own text.
bool append_alphabet_bytes(std::string_view token, std::string& bytes) {
  for (std::size_t i = 0; i < token.size();) {
    const Utf8Character character = decode_utf8(token, i);
    const int byte = character.valid ? byte_of_alphabet(character.code_point) : -1;
    if (byte < 0) return false;
    bytes.push_back(static_cast<char>(byte));
    i += character.length;
  }
  return true;
}

Status check_vocabulary(const Vocabulary& vocabulary) {
  const std::size_t size = vocabulary.size();
  const auto corrupt = [](std::string what, std::string found, std::string expected) {
    return Error{ErrorCode::kCorrupt, std::move(what),     "",
                 std::move(found),    std::move(expected), ""};
  };
  if (size == 0) return corrupt("the vocabulary is empty", "0 tokens", "at least one");
  if (vocabulary.types.size() != size) {
    return corrupt("the vocabulary's types do not match its tokens",
                   fmt::format("{} types", vocabulary.types.size()),
                   fmt::format("{}, one a token", size));
  }
  const bool scored = vocabulary.model == TokenizerModel::kSentencePiece;
  if (scored && vocabulary.scores.size() != size) {
    return corrupt("the vocabulary's scores do not match its tokens",
                   fmt::format("{} scores", vocabulary.scores.size()),
                   fmt::format("{}, one a token", size));
  }
  if (vocabulary.merges.size() != vocabulary.merge_splits.size()) {
    return corrupt("the merges are not all split in two",
                   fmt::format("{} splits", vocabulary.merge_splits.size()),
                   fmt::format("{}", vocabulary.merges.size()));
  }
  const auto inside = [&](TokenId id) {
    return id == kNoToken || (id >= 0 && static_cast<std::size_t>(id) < size);
  };
  for (const TokenId id :
       {vocabulary.bos, vocabulary.eos, vocabulary.eot, vocabulary.unknown, vocabulary.padding}) {
    if (!inside(id)) {
      return corrupt("a special token's id is outside of the vocabulary", fmt::format("{}", id),
                     fmt::format("below {}", size));
    }
  }
  for (const AddedToken& token : vocabulary.added) {
    if (token.id == kNoToken || !inside(token.id)) {
      return corrupt("an added token's id is outside of the vocabulary",
                     fmt::format("{}", token.id), fmt::format("below {}", size));
    }
  }
  return {};
}

}  // namespace

struct Tokenizer::State {
  Vocabulary vocabulary;
  TextIndex index;
  TextTable pieces;
  MergeTable merges;
  SentencePieceMerger sentence_piece;
  PreTokenizer pre_tokenizer;
  SpecialTokens added;
  SpecialTokens added_normalized;
  std::array<TokenId, 256> bytes{};  // token of each byte, kNoToken where there is none
  const PreTokenizerStep* metaspace = nullptr;

  struct Work {
    Regex::Scratch regex;
    BpeScratch bpe;
    std::vector<Piece> pieces;
    std::string text;
  };

  bool is_special(TokenId id) const {
    return vocabulary.types[id] == TokenType::kControl ||
           vocabulary.types[id] == TokenType::kUnknown;
  }
  void make_pieces();
  void encode_sentence_piece(std::string_view text, const EncodeOptions& options,
                             std::vector<TokenId>& ids) const;
  void encode_merged(std::string_view text, const EncodeOptions& options,
                     std::vector<TokenId>& ids) const;
  void encode_plain(std::string_view text, bool first, Work& work, std::vector<TokenId>& ids) const;
  void encode_word(std::string_view word, Work& work, std::vector<TokenId>& ids) const;
  void push_characters(std::string_view word, std::vector<TokenId>& symbols) const;
};

void Tokenizer::State::make_pieces() {
  const bool byte_level = vocabulary.model == TokenizerModel::kByteLevelBpe;
  pieces.reserve(vocabulary.size(), vocabulary.tokens.total_bytes());
  std::string bytes_of_token;
  for (std::size_t id = 0; id < vocabulary.size(); ++id) {
    const std::string_view token = vocabulary.tokens[id];
    const TokenType type = vocabulary.types[id];
    const bool literal = type == TokenType::kControl || type == TokenType::kUnknown ||
                         (byte_level && type == TokenType::kUserDefined);
    bytes_of_token.clear();
    if (literal) {
      pieces.push_back(token);
    } else if (byte_level) {
      pieces.push_back(
          append_alphabet_bytes(token, bytes_of_token) ? std::string_view(bytes_of_token) : token);
    } else if (const int byte = byte_of_token(token);
               byte >= 0 && (type == TokenType::kByte || vocabulary.byte_fallback)) {
      bytes_of_token.push_back(static_cast<char>(byte));
      pieces.push_back(bytes_of_token);
    } else if (token.find(kSpaceMark) == token.npos) {
      pieces.push_back(token);
    } else {
      pieces.push_back(replace_all(token, kSpaceMark, " "));
    }
  }
}

Result<Tokenizer> Tokenizer::create(Vocabulary vocabulary) {
  HONE_RETURN_IF_ERROR(check_vocabulary(vocabulary));
  auto state = std::make_unique<State>();
  state->vocabulary = std::move(vocabulary);
  const Vocabulary& kept = state->vocabulary;
  state->index.build(kept.tokens);
  state->make_pieces();
  state->added = SpecialTokens(kept, false);
  state->added_normalized = SpecialTokens(kept, true);
  state->bytes.fill(kNoToken);
  std::string name;
  for (unsigned byte = 0; byte < 256; ++byte) {
    name.clear();
    if (kept.model == TokenizerModel::kByteLevelBpe) {
      append_byte_alphabet(static_cast<unsigned char>(byte), name);
    } else {
      name = fmt::format("<0x{:02X}>", byte);
    }
    state->bytes[byte] = state->index.find(kept.tokens, name);
  }
  if (kept.model == TokenizerModel::kSentencePiece) {
    state->sentence_piece = SentencePieceMerger(kept, state->index);
  } else {
    Result<MergeTable> merges = make_merge_table(kept, state->index);
    if (!merges) return merges.error();
    state->merges = std::move(*merges);
    state->vocabulary.merges = {};  // what is left to say of them stands in the table
    state->vocabulary.merge_splits = {};
    Result<PreTokenizer> pre_tokenizer =
        PreTokenizer::create(kept.pre_tokenizer_steps, kept.unicode);
    if (!pre_tokenizer) return pre_tokenizer.error();
    state->pre_tokenizer = std::move(*pre_tokenizer);
    for (const PreTokenizerStep& step : kept.pre_tokenizer_steps) {
      if (step.kind == PreTokenizerStep::Kind::kMetaspace) state->metaspace = &step;
    }
  }
  return Tokenizer(std::move(state));
}

void Tokenizer::State::encode_sentence_piece(std::string_view text, const EncodeOptions& options,
                                             std::vector<TokenId>& ids) const {
  std::vector<Fragment> fragments;
  added.split(text, options.parse_special, fragments);
  bool after_special = true;
  std::string marked;
  for (const Fragment& fragment : fragments) {
    if (fragment.token != kNoToken) {
      ids.push_back(fragment.token);
      after_special = true;
      continue;
    }
    marked.clear();
    if (vocabulary.add_space_prefix && after_special) marked.append(kSpaceMark);
    for (const char byte : text.substr(fragment.begin, fragment.end - fragment.begin)) {
      if (byte == ' ') {
        marked.append(kSpaceMark);
      } else {
        marked.push_back(byte);
      }
    }
    sentence_piece.encode(vocabulary, index, marked, ids);
    after_special = false;
  }
}

void Tokenizer::State::encode_merged(std::string_view text, const EncodeOptions& options,
                                     std::vector<TokenId>& ids) const {
  Work work;
  std::vector<Fragment> fragments;
  std::vector<Fragment> inner;
  added.split(text, options.parse_special, fragments);
  for (const Fragment& fragment : fragments) {
    if (fragment.token != kNoToken) {
      ids.push_back(fragment.token);
      continue;
    }
    const bool first = fragment.begin == 0;
    std::string_view plain = text.substr(fragment.begin, fragment.end - fragment.begin);
    std::string normalized;
    if (!vocabulary.normalizer.empty()) {
      normalized = normalize(vocabulary.normalizer, plain);
      plain = normalized;
    }
    inner.clear();
    if (added_normalized.empty()) {
      inner.push_back({0, static_cast<std::uint32_t>(plain.size()), kNoToken});
    } else {
      added_normalized.split(plain, options.parse_special, inner);
    }
    for (const Fragment& part : inner) {
      if (part.token != kNoToken) {
        ids.push_back(part.token);
      } else {
        encode_plain(plain.substr(part.begin, part.end - part.begin), first && part.begin == 0,
                     work, ids);
      }
    }
  }
}

// One stretch without added tokens, normalized; `first`: it begins the text.
void Tokenizer::State::encode_plain(std::string_view text, bool first, Work& work,
                                    std::vector<TokenId>& ids) const {
  if (metaspace != nullptr) {
    work.text = replace_all(text, " ", kSpaceMark);
    const bool prepends = metaspace->prepend == PreTokenizerStep::Prepend::kAlways ||
                          (metaspace->prepend == PreTokenizerStep::Prepend::kFirst && first);
    if (prepends && !work.text.starts_with(kSpaceMark)) work.text.insert(0, kSpaceMark);
    text = work.text;
    for (std::size_t begin = 0; metaspace->split && begin < text.size();) {
      const std::size_t end = std::min(text.find(kSpaceMark, begin + 1), text.size());
      encode_word(text.substr(begin, end - begin), work, ids);
      begin = end;
    }
    if (metaspace->split) return;
  }
  work.pieces.clear();
  pre_tokenizer.split(text, work.regex, work.pieces);
  for (const Piece& piece : work.pieces) {
    encode_word(text.substr(piece.begin, piece.end - piece.begin), work, ids);
  }
}

void Tokenizer::State::encode_word(std::string_view word, Work& work,
                                   std::vector<TokenId>& ids) const {
  const bool byte_level = vocabulary.model == TokenizerModel::kByteLevelBpe;
  if (vocabulary.ignore_merges) {
    std::string name;
    if (byte_level) {
      for (const char byte : word) append_byte_alphabet(static_cast<unsigned char>(byte), name);
    }
    const TokenId whole = index.find(vocabulary.tokens, byte_level ? name : word);
    if (whole != kNoToken) {
      ids.push_back(whole);
      return;
    }
  }
  std::vector<TokenId>& symbols = work.bpe.symbols;
  symbols.clear();
  if (byte_level) {
    for (const char byte : word) symbols.push_back(bytes[static_cast<unsigned char>(byte)]);
  } else {
    push_characters(word, symbols);
  }
  merge_by_rank(merges, work.bpe);
  for (const TokenId id : symbols) {
    const TokenId known = id != kNoToken || !vocabulary.emit_unknown ? id : vocabulary.unknown;
    if (known != kNoToken) ids.push_back(known);
  }
}

void Tokenizer::State::push_characters(std::string_view word, std::vector<TokenId>& symbols) const {
  bool unknown_last = false;
  for (std::size_t i = 0; i < word.size();) {
    const std::string_view character = word.substr(i, decode_utf8(word, i).length);
    i += character.size();
    const TokenId id = index.find(vocabulary.tokens, character);
    if (id != kNoToken) {
      symbols.push_back(id);
      unknown_last = false;
      continue;
    }
    const auto token_of = [&](char byte) { return bytes[static_cast<unsigned char>(byte)]; };
    const bool has_bytes = vocabulary.byte_fallback &&
                           std::none_of(character.begin(), character.end(),
                                        [&](char byte) { return token_of(byte) == kNoToken; });
    if (has_bytes) {
      for (const char byte : character) symbols.push_back(token_of(byte));
      unknown_last = false;
    } else if (!(unknown_last && vocabulary.fuse_unknown)) {
      symbols.push_back(kNoToken);
      unknown_last = true;
    }
  }
}

void Tokenizer::encode(std::string_view text, EncodeOptions options,
                       std::vector<TokenId>& ids) const {
  const Vocabulary& kept = state_->vocabulary;
  const bool scored = kept.model == TokenizerModel::kSentencePiece;
  if (options.add_special && kept.add_bos && kept.bos != kNoToken) ids.push_back(kept.bos);
  for (std::size_t begin = 0; begin < text.size(); begin += kLongestStretch) {
    std::string_view stretch = text.substr(begin, kLongestStretch);
    std::string repaired;
    if (options.invalid == InvalidUtf8::kReplace && !scored &&
        find_invalid_utf8(stretch) < stretch.size()) {
      repaired = replace_invalid_utf8(stretch);
      stretch = repaired;
    }
    if (scored) {
      state_->encode_sentence_piece(stretch, options, ids);
    } else {
      state_->encode_merged(stretch, options, ids);
    }
  }
  if (options.add_special && kept.add_eos && kept.eos != kNoToken) ids.push_back(kept.eos);
}

std::vector<TokenId> Tokenizer::encode(std::string_view text, EncodeOptions options) const {
  std::vector<TokenId> ids;
  encode(text, options, ids);
  return ids;
}

std::string Tokenizer::decode(std::span<const TokenId> ids, bool include_special) const {
  std::string text;
  for (const TokenId id : ids) {
    if (include_special || !is_special(id)) text.append(piece(id));
  }
  if (state_->vocabulary.strip_decoded_space && text.starts_with(' ')) text.erase(0, 1);
  return text;
}

std::string_view Tokenizer::piece(TokenId id) const {
  if (id < 0 || static_cast<std::size_t>(id) >= vocabulary_size()) return {};
  return state_->pieces[id];
}

bool Tokenizer::is_special(TokenId id) const {
  return id >= 0 && static_cast<std::size_t>(id) < vocabulary_size() && state_->is_special(id);
}

bool Tokenizer::is_end_of_generation(TokenId id) const {
  const std::vector<TokenId>& ends = state_->vocabulary.end_of_generation;
  return id != kNoToken && std::find(ends.begin(), ends.end(), id) != ends.end();
}

TokenId Tokenizer::find(std::string_view token) const {
  return state_->index.find(state_->vocabulary.tokens, token);
}

const Vocabulary& Tokenizer::vocabulary() const { return state_->vocabulary; }

Tokenizer::Tokenizer(std::unique_ptr<const State> state) : state_(std::move(state)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

std::string Utf8Stream::push(std::string_view piece) {
  held_.append(piece);
  // A character that may still be completed starts in the last three bytes.
  std::size_t keep = 0;
  for (std::size_t back = 1; back <= 3 && back <= held_.size(); ++back) {
    const auto byte = static_cast<unsigned char>(held_[held_.size() - back]);
    if ((byte & 0xC0) == 0x80) continue;
    const std::size_t length = byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : byte >= 0xC2 ? 2 : 1;
    if (byte < 0xF5 && length > back) keep = back;
    break;
  }
  std::string shown = held_.substr(0, held_.size() - keep);
  held_.erase(0, held_.size() - keep);
  return shown;
}

std::string Utf8Stream::finish() { return std::exchange(held_, {}); }

}  // namespace hone::formats

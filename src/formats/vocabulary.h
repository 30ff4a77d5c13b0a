// What a GGUF file and a tokenizer.json both come down to: tokens, merges and the steps around
// them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "formats/text_table.h"

namespace hone::formats {

class Metadata;  // formats/gguf.h

using TokenId = std::int32_t;
inline constexpr TokenId kNoToken = -1;

enum class TokenizerModel : std::uint8_t {
  kByteLevelBpe,   // merges by rank over bytes, tokens written in GPT-2's byte alphabet
  kCharacterBpe,   // merges by rank over characters, unknown ones as byte tokens <0xNN>
  kSentencePiece,  // merges by the score of the merged token (GGUF "llama")
};

// Numbered as GGUF's tokenizer.ggml.token_type.
enum class TokenType : std::uint8_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,      // found in text only when special tokens are parsed
  kUserDefined = 4,  // found in text always
  kUnused = 5,
  kByte = 6,
};

// How a token that is looked for in the text before everything else takes its surroundings.
struct AddedToken {
  TokenId id = kNoToken;
  bool special = false;
  bool strip_left = false;   // swallows white space before it
  bool strip_right = false;  // swallows white space after it
  bool single_word = false;  // only between characters that are no word characters
  bool normalized = false;   // looked for after normalization
};

struct NormalizerStep {
  enum class Kind : std::uint8_t { kNfc, kNfd, kNfkc, kNfkd, kReplace, kPrepend, kPrefixSpace };
  Kind kind = Kind::kNfc;  // kPrefixSpace: a space in front, unless one is there
  std::string pattern;     // kReplace: plain text
  std::string content;     // kReplace, kPrepend
};

struct PreTokenizerStep {
  enum class Kind : std::uint8_t {
    kRegex,      // every match is a piece, what lies between matches too (Split, "Isolated")
    kDigits,     // runs of numeric characters, or each numeric character (individual)
    kMetaspace,  // spaces become U+2581 (the normalizer's Replace does the same for others)
  };
  enum class Prepend : std::uint8_t { kNever, kFirst, kAlways };
  enum class Behavior : std::uint8_t { kIsolated, kRemoved, kMergedWithPrevious, kMergedWithNext };
  Kind kind = Kind::kRegex;
  std::string regex;                        // kRegex, in Oniguruma's and PCRE2's common syntax
  Behavior behavior = Behavior::kIsolated;  // kRegex: what becomes of the matches
  bool invert = false;                      // kRegex: what lies between counts as the matches
  bool individual = false;                  // kDigits
  bool split = false;                       // kMetaspace: a piece begins at each U+2581
  Prepend prepend = Prepend::kNever;        // kMetaspace
};

// Which edition of Unicode says what a letter and a number is: the reference's own.
enum class UnicodeEdition : std::uint8_t {
  k15_1,  // llama.cpp, for GGUF files
  k16,    // Hugging Face's tokenizers, for tokenizer.json
};

struct Vocabulary {
  TokenizerModel model = TokenizerModel::kByteLevelBpe;
  std::string pre_tokenizer;  // GGUF's name ("llama-bpe"); empty if the steps match none

  TextTable tokens;                         // as the file writes them; V items
  std::vector<float> scores;                // V, or empty; kSentencePiece needs them
  std::vector<TokenType> types;             // V
  TextTable merges;                         // left and right in a row, by rank; BPE only
  std::vector<std::uint32_t> merge_splits;  // bytes of the left part of each merge

  std::vector<NormalizerStep> normalizer;
  std::vector<PreTokenizerStep> pre_tokenizer_steps;
  UnicodeEdition unicode = UnicodeEdition::k15_1;
  std::vector<AddedToken> added;  // tokens looked for first
  bool added_leftmost = false;    // leftmost longest (tokenizer.json); else longest first (GGUF)

  TokenId bos = kNoToken;
  TokenId eos = kNoToken;
  TokenId eot = kNoToken;  // end of turn, where it is another than eos
  TokenId unknown = kNoToken;
  TokenId padding = kNoToken;
  std::vector<TokenId> end_of_generation;  // every token that ends an answer

  bool add_bos = false;
  bool add_eos = false;
  bool add_space_prefix = false;  // kSentencePiece: a space before the text, also after a special
  bool ignore_merges = false;     // a piece that is a token is taken whole
  bool byte_fallback = false;     // characters outside of the vocabulary become <0xNN> tokens
  // BPE: what the vocabulary lacks becomes the unknown token; else it is dropped, as llama.cpp
  // does.
  bool emit_unknown = false;
  bool fuse_unknown = false;         // neighbours that are unknown become one unknown token
  bool strip_decoded_space = false;  // decoding takes one space off the front

  // The model's own Jinja template; empty if the file has none.
  std::string chat_template;

  std::size_t size() const { return tokens.size(); }
};

// Reads tokenizer.ggml.* and tokenizer.chat_template. Errors: kNotFound without a tokenizer,
// kUnsupported for a model or pre-tokenizer outside of known_pre_tokenizers(), kCorrupt when
// lengths or ids disagree.
Result<Vocabulary> vocabulary_from_gguf(const Metadata& metadata);

// Reads Hugging Face's tokenizer.json and, unless empty, tokenizer_config.json beside it (special
// tokens, chat template). Errors: kCorrupt with the JSON path, kUnsupported naming the component.
Result<Vocabulary> vocabulary_from_tokenizer_json(std::string_view tokenizer_json,
                                                  std::string_view tokenizer_config_json);

// Fills end_of_generation and eot from eos and the well-known texts of end tokens.
void find_end_of_generation(Vocabulary& vocabulary);

}  // namespace hone::formats

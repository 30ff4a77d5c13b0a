// Text to token ids and back, exactly as the model's own tokenizer does it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "formats/vocabulary.h"

namespace hone::formats {

// What byte-level BPE does with bytes that are not UTF-8. SentencePiece-style models always keep
// them as byte tokens.
enum class InvalidUtf8 : std::uint8_t {
  kKeep,     // the bytes become tokens as they are; decoding gives them back
  kReplace,  // each becomes U+FFFD, as in llama.cpp
};

struct EncodeOptions {
  bool add_special = true;    // bos and eos where the model asks for them
  bool parse_special = true;  // the text "<|im_end|>" becomes that control token
  InvalidUtf8 invalid = InvalidUtf8::kKeep;
};

// Immutable after creation; every method may be called from many threads at once.
class Tokenizer {
 public:
  static Result<Tokenizer> create(Vocabulary vocabulary);

  std::vector<TokenId> encode(std::string_view text, EncodeOptions options = {}) const;
  // Appends to `ids`; for callers that reuse a buffer.
  void encode(std::string_view text, EncodeOptions options, std::vector<TokenId>& ids) const;

  // The bytes that the ids stand for. Control tokens give their text only with include_special; ids
  // outside of the vocabulary give nothing.
  std::string decode(std::span<const TokenId> ids, bool include_special = false) const;

  // Raw bytes of one token, not always whole UTF-8 characters; empty for an id outside of the
  // vocabulary. Control tokens give their text.
  std::string_view piece(TokenId id) const;

  bool is_special(TokenId id) const;            // control or unknown
  bool is_end_of_generation(TokenId id) const;  // eos, end of turn, and their kin
  TokenId find(std::string_view token) const;  // by the text in the file; kNoToken if there is none

  TokenId bos() const { return vocabulary().bos; }
  TokenId eos() const { return vocabulary().eos; }
  TokenId eot() const { return vocabulary().eot; }
  std::size_t vocabulary_size() const { return vocabulary().size(); }
  const Vocabulary& vocabulary() const;

  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

 private:
  struct State;
  explicit Tokenizer(std::unique_ptr<const State> state);
  std::unique_ptr<const State> state_;
};

// Joins the pieces of a stream of tokens and gives out only whole UTF-8 characters: what may still
// become one is held back. Bytes that can't are given out as they are.
class Utf8Stream {
 public:
  // Takes the next piece; returns what can be shown now.
  std::string push(std::string_view piece);
  // Returns what is still held back, whole or not.
  std::string finish();

 private:
  std::string held_;
};

}  // namespace hone::formats

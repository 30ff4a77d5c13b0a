// A tokenizer for tests: every byte is a token (its id is the byte), "\n\n" and " y" are one, and
// the special strings that a test names.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "formats/tokenizer.h"
#include "formats/tokenizer_utf8.h"

namespace hone::tune::testing_data {

using formats::TokenId;

inline constexpr TokenId kTwoLineEnds = 256;
inline constexpr TokenId kSpaceY = 257;
inline constexpr TokenId kFirstSpecial = 258;

struct SmallTokenizer {
  std::vector<std::string> specials;  // their ids count from kFirstSpecial
  std::string bos;                    // one of the specials, or empty
  std::string eos;
  bool add_bos = false;
};

inline formats::Tokenizer small_tokenizer(const SmallTokenizer& wanted) {
  using formats::TokenType;
  formats::Vocabulary vocabulary;
  const auto alphabet = [](std::string_view bytes) {
    std::string text;
    for (const char byte : bytes) {
      formats::append_byte_alphabet(static_cast<unsigned char>(byte), text);
    }
    return text;
  };
  for (unsigned byte = 0; byte < 256; ++byte) {
    vocabulary.tokens.push_back(alphabet(std::string(1, static_cast<char>(byte))));
  }
  for (const std::string_view pair : {"\n\n", " y"}) {
    vocabulary.tokens.push_back(alphabet(pair));
    vocabulary.merges.push_back(alphabet(pair));
    vocabulary.merge_splits.push_back(
        static_cast<std::uint32_t>(alphabet(pair.substr(0, 1)).size()));
  }
  vocabulary.types.assign(vocabulary.tokens.size(), TokenType::kNormal);
  for (const std::string& special : wanted.specials) {
    const auto id = static_cast<TokenId>(vocabulary.tokens.size());
    vocabulary.tokens.push_back(special);
    vocabulary.types.push_back(TokenType::kControl);
    formats::AddedToken added;
    added.id = id;
    added.special = true;
    vocabulary.added.push_back(added);
    if (special == wanted.bos) vocabulary.bos = id;
    if (special == wanted.eos) vocabulary.eos = id;
  }
  vocabulary.add_bos = wanted.add_bos;
  formats::find_end_of_generation(vocabulary);
  return *formats::Tokenizer::create(std::move(vocabulary));
}

// As SmolLM2 has it: BOS opens every turn, EOS closes it.
inline formats::Tokenizer chatml_tokenizer() {
  return small_tokenizer({{"<|im_start|>", "<|im_end|>"}, "<|im_start|>", "<|im_end|>", false});
}

// As Gemma 3 has it.
inline formats::Tokenizer gemma_tokenizer() {
  return small_tokenizer(
      {{"<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"}, "<bos>", "<eos>", true});
}

// A model that was never taught to chat.
inline formats::Tokenizer base_tokenizer() {
  return small_tokenizer({{"<s>", "</s>"}, "<s>", "</s>", true});
}

inline constexpr const char* kChatMl =
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + "
    "message['content'] + '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\\n' }}{% endif %}";

}  // namespace hone::tune::testing_data

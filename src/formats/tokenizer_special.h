// Finding added tokens ("<|im_end|>") in a text before anything else is done with it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "formats/vocabulary.h"

namespace hone::formats {

// A stretch of text that is either plain or one token.
struct Fragment {
  std::uint32_t begin = 0;
  std::uint32_t end = 0;
  TokenId token = kNoToken;  // kNoToken: plain text
};

class SpecialTokens {
 public:
  SpecialTokens() = default;
  // Takes those of vocabulary.added whose `normalized` is as asked.
  SpecialTokens(const Vocabulary& vocabulary, bool normalized);

  bool empty() const { return tokens_.empty(); }

  // Appends the fragments of the text in order. Without parse_special, tokens that are special stay
  // plain text. Empty fragments are left out.
  void split(std::string_view text, bool parse_special, std::vector<Fragment>& fragments) const;

 private:
  struct Item {
    std::string_view text;  // in the vocabulary's table
    AddedToken token;
  };
  std::uint32_t longest_at(std::string_view text, std::size_t position) const;
  void split_leftmost(std::string_view text, bool parse_special,
                      std::vector<Fragment>& fragments) const;
  void split_longest_first(std::string_view text, bool parse_special,
                           std::vector<Fragment>& fragments) const;
  template <typename Visit>
  void visit_matches(std::string_view text, std::size_t position, Visit visit) const;

  std::vector<Item> tokens_;  // sorted by text
  std::array<bool, 256> first_{};
  bool leftmost_ = false;
};

}  // namespace hone::formats

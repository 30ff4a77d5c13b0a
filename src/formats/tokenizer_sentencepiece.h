// SentencePiece's BPE as GGUF's "llama" model keeps it: neighbours whose joined text is the token
// of the highest score become one, again and again. Kudo and Richardson, EMNLP 2018.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "formats/tokenizer_table.h"
#include "formats/vocabulary.h"

namespace hone::formats {

class SentencePieceMerger {
 public:
  SentencePieceMerger() = default;
  explicit SentencePieceMerger(const Vocabulary& vocabulary, const TextIndex& index);

  // Appends the ids of `text`, in which spaces are already U+2581.
  void encode(const Vocabulary& vocabulary, const TextIndex& index, std::string_view text,
              std::vector<TokenId>& ids) const;

 private:
  struct Scratch;
  void encode_piece(const Vocabulary& vocabulary, const TextIndex& index, std::string_view text,
                    Scratch& scratch, std::vector<TokenId>& ids) const;
  void merge_by_scan(const Vocabulary& vocabulary, const TextIndex& index, std::string_view text,
                     Scratch& scratch) const;
  void merge_by_heap(const Vocabulary& vocabulary, const TextIndex& index, std::string_view text,
                     Scratch& scratch) const;

  std::array<TokenId, 256> bytes_{};  // token of each byte, or the unknown token
  // Bit h of a character's hash: some token has the character right before a U+2581. Where none
  // has, no merge crosses, and the text may be cut there: words instead of one long heap.
  std::vector<std::uint64_t> joined_;
};

}  // namespace hone::formats

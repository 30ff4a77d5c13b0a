// Byte pair encoding: the neighbours whose merge has the lowest rank become one token, again and
// again. Sennrich et al., "Neural machine translation of rare words with subword units", 2016.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"
#include "formats/tokenizer_table.h"
#include "formats/vocabulary.h"

namespace hone::formats {

// Reads the vocabulary's merges; kCorrupt for one whose parts or result are no tokens.
Result<MergeTable> make_merge_table(const Vocabulary& vocabulary, const TextIndex& index);

// Working memory that calls share, so that a word allocates nothing.
struct BpeScratch {
  struct Candidate {
    std::uint32_t rank;
    std::uint32_t left;  // position of the left symbol
    TokenId left_id;     // as they were when the candidate was made: else it is stale
    TokenId right_id;
    TokenId merged;
  };
  std::vector<TokenId> symbols;  // the word: in
  std::vector<Candidate> heap;
  std::vector<std::int32_t> next;
  std::vector<std::int32_t> previous;
};

// Merges scratch.symbols in place until no pair of neighbours has a merge; kNoToken merges with
// nothing. Of equal ranks the leftmost goes first.
void merge_by_rank(const MergeTable& merges, BpeScratch& scratch);

}  // namespace hone::formats

// Merging by score, on pieces between which no token reaches.
// SPDX-License-Identifier: Apache-2.0
#include "formats/tokenizer_sentencepiece.h"

#include <algorithm>
#include <limits>

#include <fmt/format.h>
#include "formats/tokenizer_utf8.h"

namespace hone::formats {
namespace {

constexpr std::size_t kScanned = 32;  // characters up to which scanning beats the heap
constexpr std::size_t kJoinedBits = 1u << 16;

struct Symbol {
  std::uint32_t begin;
  std::uint32_t length;
};

// The reference cuts by the high half of the lead byte alone, valid or not.
std::uint32_t length_by_lead(std::string_view text, std::size_t position) {
  static constexpr std::uint8_t kLengths[16] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 3, 4};
  const std::size_t length = kLengths[static_cast<unsigned char>(text[position]) >> 4];
  return static_cast<std::uint32_t>(std::min(length, text.size() - position));
}

// Hash of the (up to four) bytes that end at `end`, back to the last lead byte.
std::size_t hash_character_before(std::string_view text, std::size_t end) {
  std::uint32_t bytes = 0;
  for (std::size_t i = 1; i <= 4 && i <= end; ++i) {
    const auto byte = static_cast<unsigned char>(text[end - i]);
    bytes = (bytes << 8) | byte;
    if ((byte & 0xC0) != 0x80) break;
  }
  return mix_bits(bytes, 0x9E3779B97F4A7C15u) % kJoinedBits;
}

}  // namespace

struct SentencePieceMerger::Scratch {
  struct Candidate {
    float score;
    std::uint32_t left;
    std::uint32_t right;
    std::uint32_t length;
  };
  std::vector<Symbol> symbols;
  std::vector<std::int32_t> next;
  std::vector<std::int32_t> previous;
  std::vector<Candidate> heap;
};

SentencePieceMerger::SentencePieceMerger(const Vocabulary& vocabulary, const TextIndex& index) {
  for (unsigned byte = 0; byte < 256; ++byte) {
    TokenId id = index.find(vocabulary.tokens, fmt::format("<0x{:02X}>", byte));
    if (id == kNoToken) {
      const char character = static_cast<char>(byte);
      id = index.find(vocabulary.tokens, std::string_view(&character, 1));
    }
    bytes_[byte] = id != kNoToken ? id : vocabulary.unknown;
  }
  joined_.assign(kJoinedBits / 64, 0);
  for (std::size_t i = 0; i < vocabulary.tokens.size(); ++i) {
    const std::string_view token = vocabulary.tokens[i];
    for (std::size_t at = token.find(kSpaceMark, 1); at != token.npos;
         at = token.find(kSpaceMark, at + 1)) {
      const std::size_t hash = hash_character_before(token, at);
      joined_[hash / 64] |= std::uint64_t{1} << (hash % 64);
    }
  }
}

void SentencePieceMerger::encode(const Vocabulary& vocabulary, const TextIndex& index,
                                 std::string_view text, std::vector<TokenId>& ids) const {
  Scratch scratch;
  std::size_t begin = 0;
  std::size_t at = 0;
  while (begin < text.size()) {
    std::size_t cut = text.find(kSpaceMark, std::max(at, begin + 1));
    if (cut == text.npos) cut = text.size();
    if (cut < text.size()) {
      const std::size_t hash = hash_character_before(text, cut);
      at = cut + kSpaceMark.size();
      // A cut inside of what the reference takes as one broken character would change its symbols.
      bool clean = (joined_[hash / 64] >> (hash % 64) & 1u) == 0;
      for (std::size_t back = 1; clean && back <= 3 && back <= cut - begin; ++back) {
        clean = length_by_lead(text, cut - back) <= back;
      }
      if (!clean) continue;
    }
    encode_piece(vocabulary, index, text.substr(begin, cut - begin), scratch, ids);
    begin = cut;
    at = cut;
  }
}

void SentencePieceMerger::encode_piece(const Vocabulary& vocabulary, const TextIndex& index,
                                       std::string_view text, Scratch& scratch,
                                       std::vector<TokenId>& ids) const {
  scratch.symbols.clear();
  for (std::size_t i = 0; i < text.size();) {
    const std::uint32_t length = length_by_lead(text, i);
    scratch.symbols.push_back({static_cast<std::uint32_t>(i), length});
    i += length;
  }
  if (scratch.symbols.size() <= kScanned) {
    merge_by_scan(vocabulary, index, text, scratch);
  } else {
    merge_by_heap(vocabulary, index, text, scratch);
  }
  for (const Symbol& symbol : scratch.symbols) {
    const std::string_view part = text.substr(symbol.begin, symbol.length);
    const TokenId id = index.find(vocabulary.tokens, part);
    if (id != kNoToken) {
      ids.push_back(id);
      continue;
    }
    for (const char byte : part) {
      const TokenId fallback = bytes_[static_cast<unsigned char>(byte)];
      if (fallback != kNoToken) ids.push_back(fallback);
    }
  }
}

void SentencePieceMerger::merge_by_scan(const Vocabulary& vocabulary, const TextIndex& index,
                                        std::string_view text, Scratch& scratch) const {
  constexpr float kNone = -std::numeric_limits<float>::infinity();
  std::vector<Symbol>& symbols = scratch.symbols;
  float scores[kScanned];  // of symbols i and i + 1 joined
  bool merges[kScanned];
  std::size_t count = symbols.size();
  const auto look_up = [&](std::size_t i) {
    const std::string_view joined =
        text.substr(symbols[i].begin, symbols[i].length + symbols[i + 1].length);
    const TokenId id = index.find(vocabulary.tokens, joined);
    merges[i] = id != kNoToken;
    scores[i] = merges[i] ? vocabulary.scores[id] : kNone;
  };
  for (std::size_t i = 0; i + 1 < count; ++i) look_up(i);
  while (count > 1) {
    std::size_t best = count;
    for (std::size_t i = 0; i + 1 < count; ++i) {
      if (merges[i] && (best == count || scores[i] > scores[best])) best = i;
    }
    if (best == count) break;
    symbols[best].length += symbols[best + 1].length;
    for (std::size_t i = best + 1; i + 1 < count; ++i) {
      symbols[i] = symbols[i + 1];
      scores[i] = scores[i + 1];
      merges[i] = merges[i + 1];
    }
    --count;
    if (best > 0) look_up(best - 1);
    if (best + 1 < count) look_up(best);
  }
  symbols.resize(count);
}

void SentencePieceMerger::merge_by_heap(const Vocabulary& vocabulary, const TextIndex& index,
                                        std::string_view text, Scratch& scratch) const {
  std::vector<Symbol>& symbols = scratch.symbols;
  auto& next = scratch.next;
  auto& previous = scratch.previous;
  auto& heap = scratch.heap;
  const auto count = static_cast<std::int32_t>(symbols.size());
  next.resize(symbols.size());
  previous.resize(symbols.size());
  heap.clear();
  const auto later = [](const Scratch::Candidate& a, const Scratch::Candidate& b) {
    return a.score != b.score ? a.score < b.score : a.left > b.left;
  };
  const auto candidate_at = [&](std::int32_t left) {
    if (left < 0 || next[left] < 0) return false;
    const std::int32_t right = next[left];
    const std::uint32_t length = symbols[left].length + symbols[right].length;
    const TokenId id = index.find(vocabulary.tokens, text.substr(symbols[left].begin, length));
    if (id == kNoToken) return false;
    heap.push_back({vocabulary.scores[id], static_cast<std::uint32_t>(left),
                    static_cast<std::uint32_t>(right), length});
    return true;
  };
  for (std::int32_t i = 0; i < count; ++i) {
    next[i] = i + 1 < count ? i + 1 : -1;
    previous[i] = i - 1;
  }
  for (std::int32_t i = 0; i + 1 < count; ++i) candidate_at(i);
  std::make_heap(heap.begin(), heap.end(), later);
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), later);
    const Scratch::Candidate candidate = heap.back();
    heap.pop_back();
    Symbol& left = symbols[candidate.left];
    Symbol& right = symbols[candidate.right];
    // Stale: one of the two has been merged since.
    if (left.length == 0 || right.length == 0) continue;
    if (left.length + right.length != candidate.length) continue;
    left.length += right.length;
    right.length = 0;
    const auto at = static_cast<std::int32_t>(candidate.left);
    next[at] = next[candidate.right];
    if (next[at] >= 0) previous[next[at]] = at;
    if (candidate_at(previous[at])) std::push_heap(heap.begin(), heap.end(), later);
    if (candidate_at(at)) std::push_heap(heap.begin(), heap.end(), later);
  }
  std::erase_if(symbols, [](const Symbol& symbol) { return symbol.length == 0; });
}

}  // namespace hone::formats

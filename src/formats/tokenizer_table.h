// Hash tables of the tokenizers: token text to id, and pair of ids to merge. Open addressing over
// flat memory, since a cold start builds them before the first token.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

#include "formats/vocabulary.h"

namespace hone::formats {

inline std::uint64_t mix_bits(std::uint64_t a, std::uint64_t b) {
  const unsigned __int128 product = static_cast<unsigned __int128>(a) * b;
  return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
}

// Multiply and fold, eight bytes at a time. Not keyed: chains are bounded by the table's own size.
inline std::uint64_t hash_text(std::string_view text) {
  constexpr std::uint64_t kOdd0 = 0x9E3779B97F4A7C15u;  // golden ratio
  constexpr std::uint64_t kOdd1 = 0xBF58476D1CE4E5B9u;  // splitmix64's first multiplier
  const char* at = text.data();
  std::size_t left = text.size();
  std::uint64_t hash = left * kOdd0;
  std::uint64_t word = 0;
  while (left >= 8) {
    std::memcpy(&word, at, 8);
    hash = mix_bits(hash ^ word, kOdd1);
    at += 8;
    left -= 8;
  }
  word = 0;
  if (left >= 4) {
    std::uint32_t low = 0;
    std::uint32_t high = 0;
    std::memcpy(&low, at, 4);
    std::memcpy(&high, at + left - 4, 4);
    word = low | (std::uint64_t{high} << 32);
  } else if (left > 0) {
    word = static_cast<unsigned char>(at[0]) |
           (std::uint64_t{static_cast<unsigned char>(at[left / 2])} << 8) |
           (std::uint64_t{static_cast<unsigned char>(at[left - 1])} << 16);
  }
  return mix_bits(hash ^ word, kOdd0 ^ kOdd1);
}

// Texts of a TextTable to their index; of equal texts the last one is found. The TextTable is not
// kept: every call is given it again.
class TextIndex {
 public:
  void build(const TextTable& texts) {
    const std::size_t slots = std::bit_ceil(texts.size() * 2 + 2);
    slots_.assign(slots, Slot{0, kNoToken});
    mask_ = slots - 1;
    for (std::size_t i = 0; i < texts.size(); ++i) {
      const std::uint64_t hash = hash_text(texts[i]);
      Slot& slot = slots_[find_slot(texts, texts[i], hash)];
      slot = {static_cast<std::uint32_t>(hash >> 32), static_cast<TokenId>(i)};
    }
  }
  TokenId find(const TextTable& texts, std::string_view text) const {
    if (slots_.empty()) return kNoToken;
    return slots_[find_slot(texts, text, hash_text(text))].id;
  }

 private:
  struct Slot {
    std::uint32_t tag;
    TokenId id;
  };
  std::size_t find_slot(const TextTable& texts, std::string_view text, std::uint64_t hash) const {
    const auto tag = static_cast<std::uint32_t>(hash >> 32);
    std::size_t slot = hash & mask_;
    while (slots_[slot].id != kNoToken) {
      if (slots_[slot].tag == tag && texts[slots_[slot].id] == text) return slot;
      slot = (slot + 1) & mask_;
    }
    return slot;
  }

  std::vector<Slot> slots_;
  std::size_t mask_ = 0;
};

struct Merge {
  std::uint32_t rank;
  TokenId id;  // of the merged token
};

// (left id, right id) to the merge; of equal pairs the first one stays.
class MergeTable {
 public:
  void reserve(std::size_t merges) {
    const std::size_t slots = std::bit_ceil(merges * 2 + 2);
    slots_.assign(slots, Slot{kEmpty, {}});
    mask_ = slots - 1;
  }
  // At most as many as were reserved.
  void insert(TokenId left, TokenId right, Merge merge) {
    Slot& slot = slots_[find_slot(key_of(left, right))];
    if (slot.key == kEmpty) slot = {key_of(left, right), merge};
  }
  const Merge* find(TokenId left, TokenId right) const {
    const Slot& slot = slots_[find_slot(key_of(left, right))];
    return slot.key == kEmpty ? nullptr : &slot.merge;
  }

 private:
  static constexpr std::uint64_t kEmpty = ~std::uint64_t{0};  // the pair of two kNoToken
  struct Slot {
    std::uint64_t key;
    Merge merge;
  };
  static std::uint64_t key_of(TokenId left, TokenId right) {
    return (std::uint64_t{static_cast<std::uint32_t>(left)} << 32) |
           static_cast<std::uint32_t>(right);
  }
  std::size_t find_slot(std::uint64_t key) const {
    std::size_t slot = mix_bits(key, 0x9E3779B97F4A7C15u) & mask_;
    while (slots_[slot].key != kEmpty && slots_[slot].key != key) slot = (slot + 1) & mask_;
    return slot;
  }

  std::vector<Slot> slots_;
  std::size_t mask_ = 0;
};

}  // namespace hone::formats

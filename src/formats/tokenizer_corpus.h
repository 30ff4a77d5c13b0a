// The fuzzed corpus of the tokenizer tests: string i is the same here and in
// tests/golden/tokenizer/corpus.py, which the oracles are asked with.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/random.h"
#include "formats/tokenizer_utf8.h"

namespace hone::formats::corpus {

using std::string_view_literals::operator""sv;

inline constexpr std::array kWords = {
    "the"sv,   "of"sv,    "Hello"sv,   "world"sv,
    "don't"sv, "I'LL"sv,  "we'Ve"sv,   "it's"sv,
    "'S"sv,    "'ſ"sv,    "kK"sv,      "naïve"sv,
    "tion"sv,  "__x"sv,   "int"sv,     "return"sv,
    "HTTP"sv,  "Übung"sv, "привет"sv,  "мир"sv,
    "東京"sv,  "안녕"sv,  "שלום"sv,    "مرحبا"sv,
    "नमस्ते"sv,  "ไทย"sv,   "e\u0301"sv, "ﬁn"sv,
    "Å"sv,     "▁a"sv,    "Ġthe"sv,    "👩‍👩‍👧‍👦"sv,
};
inline constexpr std::array kSpaces = {
    " "sv,      " "sv,      " "sv,      "\n"sv, "\n"sv, "\t"sv,     "\r\n"sv,   "\r"sv,
    "\u00a0"sv, "\u3000"sv, "\u2003"sv, "\v"sv, "\f"sv, "\u0085"sv, "\u2028"sv, "\u180e"sv,
};
inline constexpr std::string_view kPunctuation = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";
inline constexpr std::array<char32_t, 8> kNumbers = {0x0660, 0x00B2, 0x00BD, 0x2167,
                                                     0x0967, 0x3007, 0xFF10, 0x1D7CE};
// Ranges of letters, marks and symbols: first code point and how many.
inline constexpr std::array<std::array<std::uint32_t, 2>, 8> kRanges = {{
    {0xC0, 0x180},
    {0x400, 0x100},
    {0x4E00, 0x5200},
    {0x3041, 0x56},
    {0xAC00, 0x2BA4},
    {0x300, 0x70},
    {0x1F300, 0x300},
    {0x900, 0x80},
}};

inline std::uint32_t not_surrogate(std::uint32_t code) {
  return code >= 0xD800 && code < 0xE000 ? code - 0x800 : code;
}

inline void append_unit(Random& random, bool broken, std::span<const std::string_view> specials,
                        std::string& text) {
  switch (random.below(broken ? 16 : 14)) {
    case 0:
    case 1:
    case 2: text += kWords[random.below(kWords.size())]; break;
    case 3:
    case 4: {
      const std::string_view space = kSpaces[random.below(kSpaces.size())];
      for (std::uint32_t left = 1 + random.below(5); left > 0; --left) text += space;
      break;
    }
    case 5:
      for (std::uint32_t left = 1 + random.below(6); left > 0; --left) {
        text.push_back(static_cast<char>('0' + random.below(10)));
      }
      break;
    case 6:
      append_utf8(random.below(2) != 0 ? random.below(32) : 0x7F + random.below(33), text);
      break;
    case 7: append_utf8(not_surrogate(random.below(0x10000)), text); break;
    case 8: append_utf8(not_surrogate(random.below(0x110000)), text); break;
    case 9: {
      const auto& range = kRanges[random.below(kRanges.size())];
      for (std::uint32_t left = 1 + random.below(4); left > 0; --left) {
        append_utf8(range[0] + random.below(range[1]), text);
      }
      break;
    }
    case 10:
      for (std::uint32_t left = 1 + random.below(4); left > 0; --left) {
        text.push_back(kPunctuation[random.below(static_cast<std::uint32_t>(kPunctuation.size()))]);
      }
      break;
    case 11: append_utf8(kNumbers[random.below(kNumbers.size())], text); break;
    case 12:
      if (!specials.empty())
        text += specials[random.below(static_cast<std::uint32_t>(specials.size()))];
      break;
    case 13:
      for (std::uint32_t left = 1 + random.below(5); left > 0; --left) {
        text.push_back(static_cast<char>('a' + random.below(26)));
      }
      break;
    case 14:
      text.push_back(static_cast<char>(0x80 + random.below(128)));
      text.push_back("a 1\n"[random.below(4)]);
      break;
    default: {  // a character cut short
      std::string whole;
      append_utf8(0x800 + random.below(0x5000), whole);
      text += whole.substr(0, 1 + random.below(2));
      text.push_back("a 1\n"[random.below(4)]);
      break;
    }
  }
}

// String i: one to sixteen units. Every fifth string may hold bytes that are not UTF-8.
inline bool may_be_broken(std::uint32_t i) { return i % 5 == 4; }

inline std::string make_string(std::uint32_t i, std::span<const std::string_view> specials) {
  Random random(0x70CE17, i);
  std::string text;
  for (std::uint32_t left = 1 + random.below(16); left > 0; --left) {
    append_unit(random, may_be_broken(i), specials, text);
  }
  return text;
}

// FNV-1a over the ids, little endian, each string ended by -1.
class Digest {
 public:
  void add(std::span<const std::int32_t> ids) {
    for (const std::int32_t id : ids) add_word(static_cast<std::uint32_t>(id));
    add_word(0xFFFFFFFFu);
  }
  std::uint64_t value() const { return value_; }

 private:
  void add_word(std::uint32_t word) {
    for (int shift = 0; shift < 32; shift += 8) {
      value_ = (value_ ^ ((word >> shift) & 0xFF)) * 0x100000001B3u;
    }
  }
  std::uint64_t value_ = 0xCBF29CE484222325u;
};

}  // namespace hone::formats::corpus

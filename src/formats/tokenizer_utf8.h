// UTF-8 one character at a time, strict as Unicode's table 3-7 has it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace hone::formats {

struct Utf8Character {
  char32_t code_point = 0;
  std::uint32_t length = 1;  // bytes taken; 1 for a byte that starts no valid character
  bool valid = false;
};

// Decodes at `text[position]`; position < text.size().
inline Utf8Character decode_utf8(std::string_view text, std::size_t position) {
  const auto byte = [&](std::size_t i) -> std::uint32_t {
    return position + i < text.size() ? static_cast<unsigned char>(text[position + i]) : 0u;
  };
  const auto continues = [&](std::size_t i) { return (byte(i) & 0xC0u) == 0x80u; };
  const std::uint32_t first = byte(0);
  if (first < 0x80) return {first, 1, true};
  if (first >= 0xC2 && first < 0xE0 && continues(1)) {
    return {((first & 0x1Fu) << 6) | (byte(1) & 0x3Fu), 2, true};
  }
  if (first >= 0xE0 && first < 0xF0 && continues(1) && continues(2)) {
    const std::uint32_t code =
        ((first & 0xFu) << 12) | ((byte(1) & 0x3Fu) << 6) | (byte(2) & 0x3Fu);
    if (code >= 0x800 && (code < 0xD800 || code > 0xDFFF)) return {code, 3, true};
  }
  if (first >= 0xF0 && first < 0xF5 && continues(1) && continues(2) && continues(3)) {
    const std::uint32_t code = ((first & 7u) << 18) | ((byte(1) & 0x3Fu) << 12) |
                               ((byte(2) & 0x3Fu) << 6) | (byte(3) & 0x3Fu);
    if (code >= 0x10000 && code <= 0x10FFFF) return {code, 4, true};
  }
  return {first, 1, false};
}

// Appends a code point below 0x110000.
inline void append_utf8(char32_t code, std::string& text) {
  const auto put = [&](std::uint32_t byte) { text.push_back(static_cast<char>(byte)); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xC0 | (code >> 6));
    put(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    put(0xE0 | (code >> 12));
    put(0x80 | ((code >> 6) & 0x3F));
    put(0x80 | (code & 0x3F));
  } else {
    put(0xF0 | (code >> 18));
    put(0x80 | ((code >> 12) & 0x3F));
    put(0x80 | ((code >> 6) & 0x3F));
    put(0x80 | (code & 0x3F));
  }
}

// Unicode's White_Space property.
inline bool is_unicode_space(char32_t code) {
  return (code >= 0x09 && code <= 0x0D) || code == 0x20 || code == 0x85 || code == 0xA0 ||
         code == 0x1680 || (code >= 0x2000 && code <= 0x200A) || code == 0x2028 || code == 0x2029 ||
         code == 0x202F || code == 0x205F || code == 0x3000;
}

// U+2581 LOWER ONE EIGHTH BLOCK, which SentencePiece writes for a space.
inline constexpr std::string_view kSpaceMark = "\xE2\x96\x81";

// Position of the first byte at or after `position` that belongs to no valid character; size() if
// there is none.
std::size_t find_invalid_utf8(std::string_view text, std::size_t position = 0);

// Each byte that starts no character becomes U+FFFD. As llama.cpp reads text: over-long forms give
// the character they spell.
std::string replace_invalid_utf8(std::string_view text);

// The 256 characters that byte-level BPE writes bytes with: printable Latin-1 as itself, the others
// from U+0100 on in order (Radford et al. 2019, GPT-2's encoder).
void append_byte_alphabet(unsigned char byte, std::string& text);
// The byte of such a character, or -1.
int byte_of_alphabet(char32_t code);

}  // namespace hone::formats

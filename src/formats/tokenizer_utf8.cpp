// Searching and repairing UTF-8, and GPT-2's alphabet of bytes.
// SPDX-License-Identifier: Apache-2.0
#include "formats/tokenizer_utf8.h"

#include <array>
#include <cstring>

namespace hone::formats {
namespace {

constexpr bool is_printed_as_itself(unsigned byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

struct Alphabet {
  std::array<char16_t, 256> characters{};
  std::array<std::int16_t, 0x144> bytes{};  // 68 bytes are moved to U+0100 … U+0143
  constexpr Alphabet() {
    for (auto& byte : bytes) byte = -1;
    unsigned moved = 0x100;
    for (unsigned byte = 0; byte < 256; ++byte) {
      const unsigned code = is_printed_as_itself(byte) ? byte : moved++;
      characters[byte] = static_cast<char16_t>(code);
      bytes[code] = static_cast<std::int16_t>(byte);
    }
  }
};
constexpr Alphabet kAlphabet;

// Bytes of the character that a lead byte announces and that are there, over-long forms and all;
// 0 if the lead or a continuation is missing.
std::uint32_t lenient_length(std::string_view text, std::size_t position) {
  const auto lead = static_cast<unsigned char>(text[position]);
  const std::uint32_t length = lead >= 0xF8   ? 0
                               : lead >= 0xF0 ? 4
                               : lead >= 0xE0 ? 3
                               : lead >= 0xC0 ? 2
                                              : 0;
  if (length == 0 || position + length > text.size()) return 0;
  for (std::uint32_t i = 1; i < length; ++i) {
    if ((static_cast<unsigned char>(text[position + i]) & 0xC0) != 0x80) return 0;
  }
  return length;
}

}  // namespace

std::size_t find_invalid_utf8(std::string_view text, std::size_t position) {
  while (position < text.size()) {
    if (position + 8 <= text.size()) {
      std::uint64_t eight = 0;
      std::memcpy(&eight, text.data() + position, 8);
      if ((eight & 0x8080808080808080u) == 0) {
        position += 8;
        continue;
      }
    }
    const Utf8Character character = decode_utf8(text, position);
    if (!character.valid) return position;
    position += character.length;
  }
  return text.size();
}

std::string replace_invalid_utf8(std::string_view text) {
  std::string repaired;
  repaired.reserve(text.size() + 16);
  std::size_t position = 0;
  while (position < text.size()) {
    const std::size_t invalid = find_invalid_utf8(text, position);
    repaired.append(text.substr(position, invalid - position));
    if (invalid == text.size()) break;
    const std::uint32_t length = lenient_length(text, invalid);
    char32_t code = 0xFFFD;
    if (length > 0) {
      code = static_cast<unsigned char>(text[invalid]) & (0x7Fu >> length);
      for (std::uint32_t i = 1; i < length; ++i) {
        code = (code << 6) | (static_cast<unsigned char>(text[invalid + i]) & 0x3Fu);
      }
      if (code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) code = 0xFFFD;
    }
    append_utf8(code, repaired);
    position = invalid + (length > 0 ? length : 1);
  }
  return repaired;
}

void append_byte_alphabet(unsigned char byte, std::string& text) {
  append_utf8(kAlphabet.characters[byte], text);
}

int byte_of_alphabet(char32_t code) {
  return code < kAlphabet.bytes.size() ? kAlphabet.bytes[code] : -1;
}

}  // namespace hone::formats

// Fuzzes the tokenizer.json reader: what it accepts must also tokenize and give text back.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>

#include "formats/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace hone::formats;
  // Up to the first zero: tokenizer.json; behind it: tokenizer_config.json, also a text to encode.
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const std::size_t end = std::min(input.find('\0'), input.size());
  const std::string_view rest = input.substr(std::min(end + 1, input.size()));
  auto vocabulary = vocabulary_from_tokenizer_json(input.substr(0, end), rest);
  if (!vocabulary) vocabulary = vocabulary_from_tokenizer_json(input.substr(0, end), "");
  if (!vocabulary) return 0;
  const auto tokenizer = Tokenizer::create(std::move(*vocabulary));
  if (!tokenizer) return 0;
  for (const std::string_view text :
       {rest, input.substr(0, 200), std::string_view("a b\n12 é\xFF")}) {
    const auto ids = tokenizer->encode(text);
    for (const TokenId id : ids) {
      if (id < 0 || static_cast<std::size_t>(id) >= tokenizer->vocabulary_size()) __builtin_trap();
    }
    (void)tokenizer->decode(ids, true);
  }
  return 0;
}

// Two orders of search: leftmost longest as Hugging Face's, longest token first as llama.cpp's.
// SPDX-License-Identifier: Apache-2.0
#include "formats/tokenizer_special.h"

#include <algorithm>

#include "formats/tokenizer_utf8.h"

namespace hone::formats {
namespace {

constexpr std::uint32_t kNoItem = ~std::uint32_t{0};

bool is_space_at(std::string_view text, std::size_t position, std::uint32_t& length) {
  const Utf8Character character = decode_utf8(text, position);
  length = character.length;
  return character.valid && is_unicode_space(character.code_point);
}

std::size_t skip_spaces(std::string_view text, std::size_t position) {
  std::uint32_t length = 0;
  while (position < text.size() && is_space_at(text, position, length)) position += length;
  return position;
}

std::size_t character_before(std::string_view text, std::size_t position) {
  std::size_t begin = position - 1;
  while (begin > 0 && position - begin < 4 &&
         (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) {
    --begin;
  }
  return begin;
}

std::size_t skip_spaces_back(std::string_view text, std::size_t position, std::size_t least) {
  std::uint32_t length = 0;
  while (position > least) {
    const std::size_t begin = character_before(text, position);
    if (begin < least || !is_space_at(text, begin, length)) break;
    position = begin;
  }
  return position;
}

// ASCII word characters, and every character beyond ASCII that is no space.
bool is_word_at(std::string_view text, std::size_t position) {
  const auto byte = static_cast<unsigned char>(text[position]);
  std::uint32_t length = 0;
  if (byte >= 0x80) return !is_space_at(text, position, length);
  return (byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'z') ||
         (byte >= 'A' && byte <= 'Z') || byte == '_';
}

bool stands_alone(std::string_view text, std::size_t begin, std::size_t end) {
  return (begin == 0 || !is_word_at(text, character_before(text, begin))) &&
         (end == text.size() || !is_word_at(text, end));
}

void push_fragment(std::size_t begin, std::size_t end, TokenId token,
                   std::vector<Fragment>& fragments) {
  if (begin >= end && token == kNoToken) return;
  fragments.push_back({static_cast<std::uint32_t>(begin), static_cast<std::uint32_t>(end), token});
}

}  // namespace

SpecialTokens::SpecialTokens(const Vocabulary& vocabulary, bool normalized)
    : leftmost_(vocabulary.added_leftmost) {
  for (const AddedToken& token : vocabulary.added) {
    const std::string_view text = vocabulary.tokens[token.id];
    if (text.empty() || token.normalized != normalized) continue;
    tokens_.push_back({text, token});
    first_[static_cast<unsigned char>(text[0])] = true;
  }
  std::stable_sort(tokens_.begin(), tokens_.end(),
                   [](const Item& a, const Item& b) { return a.text < b.text; });
}

// Calls visit(index) for every token that stands at `position`, shorter ones first.
template <typename Visit>
void SpecialTokens::visit_matches(std::string_view text, std::size_t position, Visit visit) const {
  auto low = tokens_.begin();
  auto high = tokens_.end();
  for (std::size_t depth = 0; low != high && position + depth < text.size(); ++depth) {
    const auto wanted = static_cast<unsigned char>(text[position + depth]);
    // Within [low, high) all begin with the same `depth` bytes and none is shorter.
    const auto byte_of = [depth](const Item& item) {
      return static_cast<int>(static_cast<unsigned char>(item.text[depth]));
    };
    low = std::lower_bound(low, high, wanted,
                           [&](const Item& item, int byte) { return byte_of(item) < byte; });
    high = std::upper_bound(low, high, wanted,
                            [&](int byte, const Item& item) { return byte < byte_of(item); });
    while (low != high && low->text.size() == depth + 1) {
      visit(static_cast<std::uint32_t>(low - tokens_.begin()));
      ++low;
    }
  }
}

void SpecialTokens::split(std::string_view text, bool parse_special,
                          std::vector<Fragment>& fragments) const {
  if (leftmost_) {
    split_leftmost(text, parse_special, fragments);
  } else {
    split_longest_first(text, parse_special, fragments);
  }
}

std::uint32_t SpecialTokens::longest_at(std::string_view text, std::size_t position) const {
  std::uint32_t longest = kNoItem;
  visit_matches(text, position, [&](std::uint32_t item) { longest = item; });
  return longest;
}

void SpecialTokens::split_leftmost(std::string_view text, bool parse_special,
                                   std::vector<Fragment>& fragments) const {
  std::size_t plain = 0;
  std::size_t position = 0;
  while (position < text.size()) {
    const std::uint32_t item =
        first_[static_cast<unsigned char>(text[position])] ? longest_at(text, position) : kNoItem;
    if (item == kNoItem) {
      ++position;
      continue;
    }
    const AddedToken& token = tokens_[item].token;
    const std::size_t match_end = position + tokens_[item].text.size();
    // The search goes on behind a match that is then not taken, as the reference's does.
    if ((token.special && !parse_special) ||
        (token.single_word && !stands_alone(text, position, match_end))) {
      position = match_end;
      continue;
    }
    const std::size_t begin = token.strip_left ? skip_spaces_back(text, position, plain) : position;
    const std::size_t end = token.strip_right ? skip_spaces(text, match_end) : match_end;
    push_fragment(plain, begin, kNoToken, fragments);
    push_fragment(begin, end, token.id, fragments);
    plain = end;
    position = end;
  }
  push_fragment(plain, text.size(), kNoToken, fragments);
}

void SpecialTokens::split_longest_first(std::string_view text, bool parse_special,
                                        std::vector<Fragment>& fragments) const {
  // Which tokens are there at all: usually none or few of thousands.
  std::vector<std::uint32_t> present;
  std::vector<bool> seen;
  for (std::size_t position = 0; position < text.size(); ++position) {
    if (!first_[static_cast<unsigned char>(text[position])]) continue;
    visit_matches(text, position, [&](std::uint32_t item) {
      if (tokens_[item].token.special && !parse_special) return;
      if (seen.empty()) seen.resize(tokens_.size());
      if (!seen[item]) present.push_back(item);
      seen[item] = true;
    });
  }
  std::sort(present.begin(), present.end(), [&](std::uint32_t a, std::uint32_t b) {
    const std::size_t length_a = tokens_[a].text.size();
    const std::size_t length_b = tokens_[b].text.size();
    return length_a != length_b ? length_a > length_b : tokens_[a].token.id < tokens_[b].token.id;
  });
  std::vector<Fragment> done;
  push_fragment(0, text.size(), kNoToken, done);
  std::vector<Fragment> refined;
  for (const std::uint32_t item : present) {
    const AddedToken& token = tokens_[item].token;
    const std::string_view wanted = tokens_[item].text;
    refined.clear();
    for (const Fragment& fragment : done) {
      if (fragment.token != kNoToken) {
        refined.push_back(fragment);
        continue;
      }
      const std::string_view raw = text.substr(0, fragment.end);
      std::size_t plain = fragment.begin;
      for (std::size_t at = raw.find(wanted, plain); at != raw.npos; at = raw.find(wanted, plain)) {
        const std::size_t begin = token.strip_left ? skip_spaces_back(raw, at, plain) : at;
        const std::size_t end =
            token.strip_right ? skip_spaces(raw, at + wanted.size()) : at + wanted.size();
        push_fragment(plain, begin, kNoToken, refined);
        push_fragment(begin, end, token.id, refined);
        plain = end;
      }
      push_fragment(plain, fragment.end, kNoToken, refined);
    }
    done.swap(refined);
  }
  fragments.insert(fragments.end(), done.begin(), done.end());
}

}  // namespace hone::formats

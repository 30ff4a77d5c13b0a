// PCRE2 behind a small interface.
// SPDX-License-Identifier: Apache-2.0
#include "formats/tokenizer_regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <array>
#include <utility>

#include <fmt/format.h>
#include "formats/tokenizer_unicode.h"

namespace hone::formats {
namespace {

// PCRE2's own \s takes U+180E, which has not been white space since Unicode 6.3.
constexpr std::string_view kSpaces =
    R"(\x09-\x0d\x20\x85\xa0\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr std::uint32_t kMostSteps = 20'000'000;  // of one match; ordinary words take tens
constexpr std::size_t kLongestPattern = 100'000;  // bytes

constexpr std::string_view kProperties = "LNM";

std::string_view newer_members(char property, UnicodeEdition unicode) {
  const bool late = unicode == UnicodeEdition::k16;
  if (property == 'L') return late ? kLettersSince16 : kLettersSince15;
  if (property == 'N') return late ? kNumbersSince16 : kNumbersSince15;
  return kMarksSince16;
}

// Length of "\p{L}" or "\pL" at `at`, 0 if none of kProperties stands there.
std::size_t property_at(std::string_view pattern, std::size_t at) {
  const std::string_view rest = pattern.substr(at);
  if (rest.size() < 3 || rest[0] != '\\' || (rest[1] != 'p' && rest[1] != 'P')) return 0;
  const bool braced = rest[2] == '{';
  if (braced && (rest.size() < 5 || rest[4] != '}')) return 0;
  return kProperties.find(rest[braced ? 3 : 2]) == kProperties.npos ? 0 : braced ? 5 : 3;
}

}  // namespace

std::string with_exact_classes(std::string_view pattern, UnicodeEdition unicode) {
  std::string exact;
  bool in_class = false;
  for (std::size_t i = 0; i < pattern.size();) {
    const char character = pattern[i];
    const std::string_view pair = pattern.substr(i, 2);
    const std::size_t length = property_at(pattern, i);
    const bool negated = length > 0 && pattern[i + 1] == 'P';
    if (length > 0 && !(in_class && negated)) {
      const char property = pattern[length == 5 ? i + 3 : i + 2];
      const std::string inside =
          fmt::format("\\p{{{}}}{}", property, newer_members(property, unicode));
      exact += in_class ? inside : fmt::format("[{}{}]", negated ? "^" : "", inside);
      i += length;
    } else if (pair == "\\s") {
      exact += in_class ? std::string(kSpaces) : fmt::format("[{}]", kSpaces);
      i += 2;
    } else if (pair == "\\S" && !in_class) {
      exact += fmt::format("[^{}]", kSpaces);
      i += 2;
    } else if (character == '\\' && pair.size() == 2) {
      exact += pair;
      i += 2;
    } else {
      if (character == '[' && !in_class) {
        in_class = true;
        // A bracket right at the start of a class is the character itself.
        if (pattern.substr(i + 1, 1) == "^") exact += pattern[i++];
        if (pattern.substr(i + 1, 1) == "]") exact += pattern[i++];
      } else if (character == ']') {
        in_class = false;
      }
      exact += pattern[i++];
    }
  }
  return exact;
}

Regex::Scratch::Scratch()
    : match_data_(pcre2_match_data_create(1, nullptr)),
      context_(pcre2_match_context_create(nullptr)) {
  if (context_ != nullptr) {
    pcre2_set_match_limit(static_cast<pcre2_match_context*>(context_), kMostSteps);
  }
}

Regex::Scratch::~Scratch() {
  pcre2_match_data_free(static_cast<pcre2_match_data*>(match_data_));
  pcre2_match_context_free(static_cast<pcre2_match_context*>(context_));
}

Result<Regex> Regex::compile(std::string_view pattern, UnicodeEdition unicode) {
  if (pattern.size() > kLongestPattern) {
    return Error{ErrorCode::kOutOfRange,
                 "a regular expression of the tokenizer is too long",
                 "",
                 fmt::format("{} bytes", pattern.size()),
                 fmt::format("at most {}", kLongestPattern),
                 ""};
  }
  const std::string exact = with_exact_classes(pattern, unicode);
  int code = 0;
  PCRE2_SIZE offset = 0;
  // Possessive quantifiers and atomic groups are common to both syntaxes; \C and callouts are not
  // needed and could read past a character.
  pcre2_code* compiled =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(exact.data()), exact.size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &code, &offset, nullptr);
  if (compiled == nullptr) {
    std::array<PCRE2_UCHAR, 256> message{};
    pcre2_get_error_message(code, message.data(), message.size());
    return Error{ErrorCode::kCorrupt,
                 "a regular expression of the tokenizer does not parse",
                 "",
                 std::string(pattern.substr(0, 200)),
                 reinterpret_cast<const char*>(message.data()),
                 ""};
  }
  pcre2_jit_compile(compiled, PCRE2_JIT_COMPLETE);  // without it, matching is slower and the same
  return Regex(compiled);
}

bool Regex::find(std::string_view text, std::size_t start, Scratch& scratch,
                 RegexMatch& match) const {
  auto* data = static_cast<pcre2_match_data*>(scratch.match_data_);
  auto* context = static_cast<pcre2_match_context*>(scratch.context_);
  if (data == nullptr) return false;
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  const auto* code = static_cast<const pcre2_code*>(code_);
  int found = pcre2_match(code, subject, text.size(), start, PCRE2_NO_UTF_CHECK, data, context);
  if (found == PCRE2_ERROR_JIT_STACKLIMIT) {
    found = pcre2_match(code, subject, text.size(), start, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, data,
                        context);
  }
  if (found < 0) return false;
  const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(data);
  match = {bounds[0], bounds[1]};
  return match.begin <= match.end;  // \K in a lookbehind could turn them around
}

Regex::Regex(Regex&& other) noexcept : code_(std::exchange(other.code_, nullptr)) {}

Regex& Regex::operator=(Regex&& other) noexcept {
  std::swap(code_, other.code_);
  return *this;
}

Regex::~Regex() { pcre2_code_free(static_cast<pcre2_code*>(code_)); }

}  // namespace hone::formats

// Extraction and comparison of answers.
// SPDX-License-Identifier: Apache-2.0
#include "tune/answer_match.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <array>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <vector>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace hone::tune {
namespace {

struct FreeCode {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
};
struct FreeMatch {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
};
struct FreeContext {
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
};

// One expression; null where there is none.
using Code = std::unique_ptr<pcre2_code, FreeCode>;

Result<Code> compile(const std::string& pattern, const char* option) {
  if (pattern.empty()) return Code();
  int code = 0;
  std::size_t place = 0;
  Code compiled(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                              PCRE2_UTF | PCRE2_MATCH_INVALID_UTF | PCRE2_MULTILINE, &code, &place,
                              nullptr));
  if (compiled != nullptr) return compiled;
  std::array<PCRE2_UCHAR, 256> message{};
  pcre2_get_error_message(code, message.data(), message.size());
  return Error{
      ErrorCode::kInvalidArgument,
      "this is no regular expression",
      option,
      fmt::format("'{}': {} at {}", pattern, reinterpret_cast<const char*>(message.data()), place),
      "an expression as Perl has them",
      ""};
}

// The first group, or all, of the last match.
std::optional<std::string> last_match(const pcre2_code* code, std::string_view text) {
  if (code == nullptr) return std::string(text);
  const std::unique_ptr<pcre2_match_data, FreeMatch> data(
      pcre2_match_data_create_from_pattern(code, nullptr));
  const std::unique_ptr<pcre2_match_context, FreeContext> context(
      pcre2_match_context_create(nullptr));
  constexpr std::uint32_t kMostSteps = 1'000'000;  // an expression that explodes finds nothing
  pcre2_set_match_limit(context.get(), kMostSteps);
  std::optional<std::string> found;
  std::size_t at = 0;
  while (at <= text.size()) {
    const int groups = pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), at,
                                   0, data.get(), context.get());
    if (groups <= 0) break;
    const std::size_t* places = pcre2_get_ovector_pointer(data.get());
    const bool group = groups > 1 && places[2] != PCRE2_UNSET;
    const std::size_t begin = places[group ? 2 : 0];
    found = std::string(text.substr(begin, places[group ? 3 : 1] - begin));
    at = places[1] > at ? places[1] : at + 1;  // an empty match must not be found again
  }
  return found;
}

constexpr std::string_view kSpace = " \t\r\n\v\f";

std::string_view trimmed(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

std::string case_folded(const std::string& text) {
  struct Free {
    void operator()(utf8proc_uint8_t* bytes) const { std::free(bytes); }  // NOLINT C's allocation
  };
  utf8proc_uint8_t* raw = nullptr;
  const auto size = utf8proc_map(
      reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
      static_cast<utf8proc_ssize_t>(text.size()), &raw,
      static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_CASEFOLD));
  const std::unique_ptr<utf8proc_uint8_t, Free> bytes(raw);
  if (size < 0) return text;  // not UTF-8: compared as it is
  return std::string(reinterpret_cast<const char*>(bytes.get()), static_cast<std::size_t>(size));
}

std::string without_punctuation(std::string_view text) {
  std::string out;
  bool gap = false;
  for (const char byte : text) {
    const auto code = static_cast<unsigned char>(byte);
    if (code < 0x80 && std::ispunct(code) != 0) continue;
    if (kSpace.find(byte) != std::string_view::npos) {
      gap = !out.empty();
      continue;
    }
    if (gap) out += ' ';
    gap = false;
    out += byte;
  }
  return out;
}

std::optional<double> number_of(std::string_view text) {
  std::string digits;
  for (const char byte : text) {
    if (byte != ',' && byte != '$' && byte != '%' && byte != ' ') digits += byte;
  }
  if (digits.ends_with('.')) digits.pop_back();  // the end of a sentence
  if (digits.starts_with('+')) digits.erase(0, 1);
  double value = 0;
  const auto [end, code] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (code != std::errc() || end != digits.data() + digits.size() || !std::isfinite(value)) {
    return std::nullopt;
  }
  return value;
}

std::string comparable(std::string_view text, const MatchOptions& options) {
  std::string out(options.keep_space ? text : trimmed(text));
  if (options.ignore_case) out = case_folded(out);
  if (options.ignore_punctuation) out = without_punctuation(out);
  return out;
}

}  // namespace

struct AnswerMatcher::State {
  MatchOptions options;
  Code extract;
  Code extract_answer;
};

AnswerMatcher::AnswerMatcher(std::unique_ptr<State> state) : state_(std::move(state)) {}
AnswerMatcher::AnswerMatcher(AnswerMatcher&&) noexcept = default;
AnswerMatcher& AnswerMatcher::operator=(AnswerMatcher&&) noexcept = default;
AnswerMatcher::~AnswerMatcher() = default;

Result<AnswerMatcher> AnswerMatcher::create(const MatchOptions& options) {
  auto extract = compile(options.extract, "--extract");
  if (!extract) return extract.error();
  auto extract_answer = compile(options.extract_answer, "--extract-answer");
  if (!extract_answer) return extract_answer.error();
  return AnswerMatcher(
      std::make_unique<State>(State{options, *std::move(extract), *std::move(extract_answer)}));
}

std::optional<std::string> AnswerMatcher::extract(std::string_view said) const {
  return last_match(state_->extract.get(), said);
}

bool AnswerMatcher::matches(std::string_view extracted,
                            std::span<const std::string> answers) const {
  const MatchOptions& options = state_->options;
  const std::string mine = comparable(extracted, options);
  for (const std::string& answer : answers) {
    const auto part = last_match(state_->extract_answer.get(), answer);
    if (!part) continue;
    const std::string theirs = comparable(*part, options);
    if (mine == theirs) return true;
    if (!options.numbers) continue;
    const auto a = number_of(mine);
    const auto b = number_of(theirs);
    // Decimal fractions that mean the same differ by rounding alone.
    if (a && b && std::abs(*a - *b) <= 1e-9 * std::max(1.0, std::abs(*b))) return true;
  }
  return false;
}

}  // namespace hone::tune

// The known pre-tokenizers, and the cutting.
// SPDX-License-Identifier: Apache-2.0
#include "formats/tokenizer_pre.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>
#include "formats/tokenizer_unicode.h"
#include "formats/tokenizer_utf8.h"

namespace hone::formats {

const std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

namespace {

constexpr std::string_view kLlama3Pattern =
    R"((?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+)"
    R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2Pattern =
    R"((?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+)"
    R"(|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
// The same two as their tokenizer.json files write them.
constexpr std::string_view kLlama3JsonPattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+)"
    R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2JsonPattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+)"
    R"(|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

enum class Known { kGpt2, kSmollm, kLlama3, kQwen2 };
struct Name {
  std::string_view name;
  Known known;
};
// Names that llama.cpp's converter writes for models with these very patterns.
constexpr std::array kNames = {
    Name{"gpt-2", Known::kGpt2},       Name{"gpt2", Known::kGpt2},
    Name{"phi-2", Known::kGpt2},       Name{"mpt", Known::kGpt2},
    Name{"olmo", Known::kGpt2},        Name{"jais", Known::kGpt2},
    Name{"smollm", Known::kSmollm},    Name{"starcoder", Known::kSmollm},
    Name{"refact", Known::kSmollm},    Name{"command-r", Known::kSmollm},
    Name{"codeshell", Known::kSmollm}, Name{"exaone", Known::kSmollm},
    Name{"llama-bpe", Known::kLlama3}, Name{"llama3", Known::kLlama3},
    Name{"llama-v3", Known::kLlama3},  Name{"falcon3", Known::kLlama3},
    Name{"qwen2", Known::kQwen2},      Name{"deepseek-r1-qwen", Known::kQwen2},
    Name{"stablelm2", Known::kQwen2},  Name{"megrez", Known::kQwen2},
};

PreTokenizerStep regex_step(std::string_view pattern) {
  PreTokenizerStep step;
  step.regex = std::string(pattern);
  return step;
}

PreTokenizerStep digits_step() {
  PreTokenizerStep step;
  step.kind = PreTokenizerStep::Kind::kDigits;
  step.individual = true;
  return step;
}

std::string regex_of(const PreTokenizerStep& step, UnicodeEdition unicode) {
  if (step.kind != PreTokenizerStep::Kind::kDigits) return step.regex;
  return fmt::format("[\\p{{N}}{}]{}", unicode == UnicodeEdition::k16 ? kNumbersSince17 : "",
                     step.individual ? "" : "+");
}

}  // namespace

Result<std::vector<PreTokenizerStep>> pre_tokenizer_steps(std::string_view name) {
  const auto* found = std::find_if(kNames.begin(), kNames.end(),
                                   [&](const Name& known) { return known.name == name; });
  if (found == kNames.end()) {
    std::string names;
    for (const Name& known : kNames) {
      names += names.empty() ? "" : ", ";
      names += known.name;
    }
    return Error{ErrorCode::kUnsupported,
                 "the file names a pre-tokenizer that hone does not know",
                 "tokenizer.ggml.pre",
                 fmt::format("'{}'", name),
                 fmt::format("one of {}", names),
                 "use the model's tokenizer.json, which spells its pre-tokenizer out"};
  }
  std::vector<PreTokenizerStep> steps;
  switch (found->known) {
    case Known::kGpt2: steps.push_back(regex_step(kGpt2Pattern)); break;
    case Known::kSmollm:
      steps.push_back(digits_step());
      steps.push_back(regex_step(kGpt2Pattern));
      break;
    case Known::kLlama3: steps.push_back(regex_step(kLlama3Pattern)); break;
    case Known::kQwen2: steps.push_back(regex_step(kQwen2Pattern)); break;
  }
  return steps;
}

std::string_view pre_tokenizer_name(std::span<const PreTokenizerStep> steps) {
  const auto is_regex = [&](std::size_t i, std::string_view pattern) {
    return steps[i].kind == PreTokenizerStep::Kind::kRegex && steps[i].regex == pattern &&
           !steps[i].invert && steps[i].behavior == PreTokenizerStep::Behavior::kIsolated;
  };
  if (steps.size() == 1) {
    if (is_regex(0, kGpt2Pattern)) return "gpt-2";
    if (is_regex(0, kLlama3Pattern) || is_regex(0, kLlama3JsonPattern)) return "llama-bpe";
    if (is_regex(0, kQwen2Pattern) || is_regex(0, kQwen2JsonPattern)) return "qwen2";
  }
  if (steps.size() == 2 && steps[0].kind == PreTokenizerStep::Kind::kDigits &&
      steps[0].individual && is_regex(1, kGpt2Pattern)) {
    return "smollm";
  }
  return "";
}

Result<PreTokenizer> PreTokenizer::create(std::span<const PreTokenizerStep> steps,
                                          UnicodeEdition unicode) {
  PreTokenizer made;
  for (const PreTokenizerStep& step : steps) {
    if (step.kind == PreTokenizerStep::Kind::kMetaspace) continue;  // the tokenizer's own work
    Result<Regex> regex = Regex::compile(regex_of(step, unicode), unicode);
    if (!regex) return regex.error();
    made.steps_.push_back({std::move(*regex), step.behavior, step.invert});
  }
  return made;
}

void PreTokenizer::apply(const Step& step, std::string_view text, Piece piece,
                         Regex::Scratch& scratch, std::vector<Piece>& out) {
  using Behavior = PreTokenizerStep::Behavior;
  const std::string_view subject = text.substr(piece.begin, piece.end - piece.begin);
  const std::size_t first_out = out.size();
  bool last_was_match = false;
  const auto push = [&](std::size_t begin, std::size_t end, bool matched) {
    if (begin == end) return;
    if (step.invert) matched = !matched;
    const Piece part = {piece.begin + static_cast<std::uint32_t>(begin),
                        piece.begin + static_cast<std::uint32_t>(end)};
    const bool has_last = out.size() > first_out;
    const bool joins =
        (step.behavior == Behavior::kMergedWithPrevious && matched && has_last &&
         !last_was_match) ||
        (step.behavior == Behavior::kMergedWithNext && !matched && has_last && last_was_match);
    if (joins) {
      out.back().end = part.end;
    } else if (step.behavior != Behavior::kRemoved || !matched) {
      out.push_back(part);
    }
    last_was_match = matched;
  };
  std::size_t done = 0;
  std::size_t start = 0;
  RegexMatch match;
  while (start <= subject.size() && step.regex.find(subject, start, scratch, match)) {
    if (match.end == match.begin) {
      if (match.end >= subject.size()) break;
      start = match.end + decode_utf8(subject, match.end).length;
      continue;
    }
    push(done, match.begin, false);
    push(match.begin, match.end, true);
    done = match.end;
    start = match.end;
  }
  push(done, subject.size(), false);
}

void PreTokenizer::split(std::string_view text, Regex::Scratch& scratch,
                         std::vector<Piece>& pieces) const {
  pieces.clear();
  std::size_t position = 0;
  while (position < text.size()) {
    const std::size_t invalid = find_invalid_utf8(text, position);
    std::vector<Piece> current;
    if (invalid > position) {
      current.push_back(
          {static_cast<std::uint32_t>(position), static_cast<std::uint32_t>(invalid)});
    }
    for (const Step& step : steps_) {
      std::vector<Piece> refined;
      refined.reserve(current.size() + (invalid - position) / 4);
      for (const Piece& piece : current) apply(step, text, piece, scratch, refined);
      current.swap(refined);
    }
    if (pieces.empty()) {
      pieces.swap(current);
    } else {
      pieces.insert(pieces.end(), current.begin(), current.end());
    }
    position = invalid;
    while (position < text.size() && !decode_utf8(text, position).valid) ++position;
    if (position > invalid) {
      pieces.push_back({static_cast<std::uint32_t>(invalid), static_cast<std::uint32_t>(position)});
    }
  }
}

}  // namespace hone::formats

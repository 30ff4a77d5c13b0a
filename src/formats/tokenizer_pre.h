// Pre-tokenization: a text is cut into pieces that no token crosses.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "formats/tokenizer_regex.h"
#include "formats/vocabulary.h"

namespace hone::formats {

struct Piece {
  std::uint32_t begin = 0;
  std::uint32_t end = 0;
};

class PreTokenizer {
 public:
  static Result<PreTokenizer> create(std::span<const PreTokenizerStep> steps,
                                     UnicodeEdition unicode);

  // Fills `pieces` with the pieces of any text, in order. Bytes that are not UTF-8 match nothing:
  // each run of them is a piece of its own, and each stretch between is a text of its own.
  void split(std::string_view text, Regex::Scratch& scratch, std::vector<Piece>& pieces) const;

 private:
  struct Step {
    Regex regex;
    PreTokenizerStep::Behavior behavior;
    bool invert;
  };
  static void apply(const Step& step, std::string_view text, Piece piece, Regex::Scratch& scratch,
                    std::vector<Piece>& out);

  std::vector<Step> steps_;
};

// The steps that GGUF's tokenizer.ggml.pre names. kUnsupported, with the names hone knows.
Result<std::vector<PreTokenizerStep>> pre_tokenizer_steps(std::string_view name);
// The shortest such name for these steps; empty if there is none.
std::string_view pre_tokenizer_name(std::span<const PreTokenizerStep> steps);

// GPT-2's pattern, which the ByteLevel step of a tokenizer.json stands for.
extern const std::string_view kGpt2Pattern;

}  // namespace hone::formats

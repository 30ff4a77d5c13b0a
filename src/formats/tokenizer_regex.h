// Regular expressions of pre-tokenizers: PCRE2 with Unicode properties, compiled to machine code
// where it can be, and classes that mean what the tokenizers' own regex library means.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "base/status.h"
#include "formats/vocabulary.h"

namespace hone::formats {

struct RegexMatch {
  std::size_t begin = 0;
  std::size_t end = 0;
};

class Regex {
 public:
  // Working memory of a match; one a thread, for any number of expressions.
  class Scratch {
   public:
    Scratch();
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    ~Scratch();

   private:
    friend class Regex;
    void* match_data_;
    void* context_;
  };

  // kCorrupt for what is no regular expression.
  static Result<Regex> compile(std::string_view pattern, UnicodeEdition unicode);

  // The first match at or after `start` in valid UTF-8. False if there is none, or if the
  // expression takes more than its bounded number of steps.
  bool find(std::string_view text, std::size_t start, Scratch& scratch, RegexMatch& match) const;

  Regex(Regex&& other) noexcept;
  Regex& operator=(Regex&& other) noexcept;
  ~Regex();

 private:
  explicit Regex(void* code) : code_(code) {}
  void* code_;
};

// Rewrites \s, \p{L}, \p{N} and \p{M}: white space without U+180E, and the letters, numbers and
// marks of Unicode 16. For tests.
std::string with_exact_classes(std::string_view pattern, UnicodeEdition unicode);

}  // namespace hone::formats

// A record as tokens with a mask, by the code that also serves the model.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "formats/chat_template.h"
#include "formats/tokenizer.h"
#include "tune/data/record.h"

namespace hone::tune {

struct Example {
  std::vector<formats::TokenId> tokens;
  std::vector<std::uint8_t>
      learn;               // learn[i] = 1: tokens[i] is predicted, with loss; never the first
  std::size_t record = 0;  // line in the file; its number where lines say little
  bool truncated = false;
};

// What a model's template and tokenizer do, found out by asking them.
struct Conventions {
  // Text of a short conversation, of two questions and one answer; empty without a template.
  std::string probe;
  bool closes_answers = false;  // the template writes a stop token behind an answer
  // BOS opens every turn (as ChatML's <|im_start|> in some models), so one text has several.
  bool bos_opens_turns = false;
  // Strings that the template or the tokenizer mean as one token: "<|im_end|>".
  std::vector<std::string> markers;
};

struct ExampleMaker {
  const formats::Tokenizer& tokenizer;
  const formats::ChatTemplate* chat;  // null: the model only completes text
  std::int64_t length;                // most tokens of an example
  bool everything;                    // learn all tokens, not only answers
  Conventions conventions;
};

// Error: the template takes no plain conversation at all.
Result<ExampleMaker> make_example_maker(const formats::Tokenizer& tokenizer,
                                        const formats::ChatTemplate* chat, std::int64_t length,
                                        bool everything);

// An example, and what there is to check about it.
struct MadeExample {
  Example example;
  std::size_t answers = 0;   // learned answers that are whole
  std::size_t stopped = 0;   // of these, those whose last learned token is a stop token
  std::size_t spliced = 0;   // answers whose first letters would have merged with the prompt
  std::size_t unserved = 0;  // answers left out: the template shows their prompt differently
  std::size_t foreign = 0;   // special tokens that the data itself spelled out
  bool one_bos = true;
};

// Errors: a role that the template does not know, a conversation without an answer, nothing left to
// learn. `record` is any but plain text of a file.
Result<MadeExample> make_example(const ExampleMaker& maker, const Record& record);

// A long text in pieces of at most `length` tokens, all of them learned; EOS behind the last.
std::vector<MadeExample> make_pieces(const ExampleMaker& maker, const std::string& text);

}  // namespace hone::tune

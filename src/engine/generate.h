// Text in, text out: tokenizes, prefills, samples, streams, stops.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/sampler.h"
#include "engine/session.h"
#include "formats/tokenizer.h"

namespace hone::engine {

struct GenerateOptions {
  SamplingOptions sampling;
  std::int64_t most_tokens = 512;
  std::vector<std::string> stops;     // the text ends before the first of them
  bool ignore_end = false;            // go on past end-of-generation tokens
  std::function<bool()> interrupted;  // asked after every token
};

enum class StopReason : std::uint8_t { kEnd, kStopText, kLength, kContext, kInterrupted };
const char* stop_reason_name(StopReason reason);

struct Generated {
  std::string text;
  std::vector<TokenId> tokens;  // without the one that ended it
  StopReason reason = StopReason::kEnd;
  std::int64_t prompt_tokens = 0;
  std::int64_t reused_tokens = 0;  // of the prompt, found in the cache
  double prefill_seconds = 0;
  double decode_seconds = 0;
};

// Gets whole UTF-8 characters as they become certain (no stop text can begin in them).
using Show = std::function<void(std::string_view text)>;

// Continues a sequence, which may hold tokens already, with the prompt and then the answer. The
// answer's tokens stay in the sequence, so that a conversation goes on, but the token sampled last
// does not: the ending token, or the answer's last token where something else cut it short.
Result<Generated> generate(Session& session, const formats::Tokenizer& tokenizer,
                           SequenceId sequence, std::span<const TokenId> prompt,
                           const GenerateOptions& options, const Show& show = nullptr);

// Of text, as llama.cpp defines it: chunks of `context` tokens without overlap, each begun with the
// beginning-of-sequence token where the model adds one (in place of its first token); scored are
// the predictions made at positions context / 2 … context - 2.
struct Perplexity {
  double perplexity = 0;
  double standard_error = 0;  // of the mean negative log likelihood, times the perplexity
  std::int64_t scored_tokens = 0;
  std::int64_t chunks = 0;
};
using Progress = std::function<void(std::int64_t done, std::int64_t total)>;
Result<Perplexity> perplexity(Session& session, const formats::Tokenizer& tokenizer,
                              std::string_view text, std::int64_t context,
                              const Progress& progress = nullptr);

}  // namespace hone::engine

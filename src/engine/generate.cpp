// SPDX-License-Identifier: Apache-2.0
#include "engine/generate.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

namespace hone::engine {
namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Holds text back as long as a stop text could begin in it.
class StopFilter {
 public:
  explicit StopFilter(const std::vector<std::string>& stops) : stops_(stops) {}

  // Takes more text; returns what is certain. After a stop nothing more comes out.
  std::string push(std::string_view text) {
    held_ += text;
    for (const std::string& stop : stops_) {
      const std::size_t at = stop.empty() ? std::string::npos : held_.find(stop);
      if (at != std::string::npos) {
        stopped_ = true;
        held_.resize(at);
      }
    }
    std::size_t keep = 0;
    for (const std::string& stop : stops_) {
      for (std::size_t size = std::min(stop.size(), held_.size() + 1); size-- > 1;) {
        if (!stopped_ && held_.ends_with(std::string_view(stop).substr(0, size))) {
          keep = std::max(keep, size);
          break;
        }
      }
    }
    std::string certain = held_.substr(0, held_.size() - keep);
    held_.erase(0, certain.size());
    return certain;
  }
  std::string finish() { return std::exchange(held_, {}); }
  bool stopped() const { return stopped_; }

 private:
  const std::vector<std::string>& stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace

const char* stop_reason_name(StopReason reason) {
  switch (reason) {
    case StopReason::kEnd: return "end";
    case StopReason::kStopText: return "stop";
    case StopReason::kLength: return "length";
    case StopReason::kContext: return "context";
    case StopReason::kInterrupted: return "interrupted";
  }
  return "unknown";
}

Result<Generated> generate(Session& session, const formats::Tokenizer& tokenizer,
                           SequenceId sequence, std::span<const TokenId> prompt,
                           const GenerateOptions& options, const Show& show) {
  HONE_RETURN_IF_ERROR(check(options.sampling));
  Generated out;
  out.prompt_tokens = static_cast<std::int64_t>(prompt.size());
  if (prompt.empty()) {
    return Error{ErrorCode::kInvalidArgument, "the prompt is empty",         "", "no tokens",
                 "at least one token",        "give some text with --prompt"};
  }
  auto start = std::chrono::steady_clock::now();
  out.reused_tokens = session.reuse(sequence, prompt);
  auto logits =
      session.prefill(sequence, prompt.subspan(static_cast<std::size_t>(out.reused_tokens)));
  if (!logits) return logits.error();
  out.prefill_seconds = seconds_since(start);

  start = std::chrono::steady_clock::now();
  Sampler sampler(options.sampling);
  std::vector<TokenId> recent(prompt.begin(), prompt.end());
  formats::Utf8Stream characters;
  StopFilter filter(options.stops);
  const auto emit = [&](const std::string& text) {
    out.text += text;
    if (show && !text.empty()) show(text);
  };
  out.reason = StopReason::kLength;
  while (static_cast<std::int64_t>(out.tokens.size()) < options.most_tokens) {
    const TokenId token = sampler.sample(*logits, recent);
    recent.push_back(token);
    const bool ends = !options.ignore_end && tokenizer.is_end_of_generation(token);
    if (!ends) {
      out.tokens.push_back(token);
      if (!tokenizer.is_special(token)) emit(filter.push(characters.push(tokenizer.piece(token))));
    }
    // The answer's own ending comes before what cuts it short.
    if (options.interrupted && options.interrupted()) out.reason = StopReason::kInterrupted;
    if (session.length(sequence) >= session.context()) out.reason = StopReason::kContext;
    if (filter.stopped()) out.reason = StopReason::kStopText;
    if (ends) out.reason = StopReason::kEnd;
    if (ends || out.reason != StopReason::kLength) break;
    if (static_cast<std::int64_t>(out.tokens.size()) == options.most_tokens) break;
    const Request request{sequence, std::span(&token, 1), Wanted::kLast};
    logits = session.step(std::span(&request, 1));
    if (!logits) return logits.error();
  }
  if (!filter.stopped()) {
    std::string rest = filter.push(characters.finish());
    emit(rest + filter.finish());
  }
  out.decode_seconds = seconds_since(start);
  return out;
}

Result<Perplexity> perplexity(Session& session, const formats::Tokenizer& tokenizer,
                              std::string_view text, std::int64_t context,
                              const Progress& progress) {
  const std::vector<TokenId> tokens = tokenizer.encode(text);
  const auto size = static_cast<std::size_t>(context);
  Perplexity out;
  out.chunks = context > 0 ? static_cast<std::int64_t>(tokens.size() / size) : 0;
  if (out.chunks == 0 || context < 4) {
    return Error{ErrorCode::kInvalidArgument,
                 "the text is too short for one chunk",
                 "",
                 std::to_string(tokens.size()) + " tokens",
                 "at least " + std::to_string(context) + " (--context)",
                 "give more text, or lower --context"};
  }
  double sum = 0;
  double squares = 0;
  const std::size_t vocabulary = static_cast<std::size_t>(session.config().vocabulary);
  for (std::int64_t chunk = 0; chunk < out.chunks; ++chunk) {
    std::vector<TokenId> part(tokens.begin() + chunk * context,
                              tokens.begin() + (chunk + 1) * context);
    if (tokenizer.vocabulary().add_bos) part[0] = tokenizer.bos();
    const SequenceId sequence = session.begin();
    const std::size_t first = size / 2;
    const std::span<const TokenId> all(part);
    Status status;
    auto head = session.prefill(sequence, all.first(first));
    if (!head) status = head.error();
    // Small steps: the logits of a step are rows of the whole vocabulary.
    constexpr std::size_t kRows = 32;
    for (std::size_t at = first; status.ok() && at + 1 < size; at += kRows) {
      const std::size_t count = std::min(kRows, size - 1 - at);
      const Request request{sequence, all.subspan(at, count), Wanted::kAll};
      auto logits = session.step(std::span(&request, 1));
      if (!logits) {
        status = logits.error();
        break;
      }
      for (std::size_t i = 0; i < count; ++i) {
        const double loss =
            -log_probability(logits->subspan(i * vocabulary, vocabulary), part[at + i + 1]);
        sum += loss;
        squares += loss * loss;
        ++out.scored_tokens;
      }
    }
    session.end(sequence);
    if (!status.ok()) return status.error();
    if (progress) progress(chunk + 1, out.chunks);
  }
  const auto count = static_cast<double>(out.scored_tokens);
  const double mean = sum / count;
  out.perplexity = std::exp(mean);
  if (out.scored_tokens > 1) {
    const double variance = std::max(0.0, squares / count - mean * mean) / (count - 1);
    out.standard_error = out.perplexity * std::sqrt(variance);
  }
  return out;
}

}  // namespace hone::engine

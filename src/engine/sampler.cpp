// SPDX-License-Identifier: Apache-2.0
#include "engine/sampler.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/registry.h"

namespace hone::engine {
namespace {

// exp(-30) is below 1e-13: with top k on, a candidate this far from the best is never drawn.
constexpr float kFarBehind = 30.0f;

Error out_of_range(const char* name, double found, const char* expected) {
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("{} is out of range", name),
               "",
               fmt::format("{}", found),
               expected,
               ""};
}

}  // namespace

Status check(const SamplingOptions& options) {
  if (!(options.temperature >= 0) || !std::isfinite(options.temperature)) {
    return out_of_range("temperature", options.temperature, "0 or more");
  }
  if (options.top_k < 0) return out_of_range("top-k", options.top_k, "0 (off) or more");
  if (!(options.top_p > 0 && options.top_p <= 1)) {
    return out_of_range("top-p", options.top_p, "above 0, at most 1");
  }
  if (!(options.min_p >= 0 && options.min_p < 1)) {
    return out_of_range("min-p", options.min_p, "0 to below 1");
  }
  if (!(options.repetition_penalty > 0) || !std::isfinite(options.repetition_penalty)) {
    return out_of_range("repetition penalty", options.repetition_penalty, "above 0; 1 is off");
  }
  return {};
}

void Sampler::collect(std::span<const float> logits, std::span<const TokenId> recent) {
  candidates_.clear();
  if (options_.repetition_penalty != 1.0f) {
    penalized_.assign(logits.begin(), logits.end());
    const auto window = static_cast<std::size_t>(std::max(options_.repetition_window, 0));
    const auto last = recent.last(std::min(window, recent.size()));
    for (std::size_t i = 0; i < last.size(); ++i) {
      // Once for each token, however often it came.
      if (std::find(last.begin(), last.begin() + static_cast<std::ptrdiff_t>(i), last[i]) !=
          last.begin() + static_cast<std::ptrdiff_t>(i)) {
        continue;
      }
      float& logit = penalized_[static_cast<std::size_t>(last[i])];
      logit = logit > 0 ? logit / options_.repetition_penalty : logit * options_.repetition_penalty;
    }
    logits = penalized_;
  }
  const float best = kernels::kernels().max_row(logits);
  const float least = options_.top_k > 0 ? best - kFarBehind * std::max(1.0f, options_.temperature)
                                         : -std::numeric_limits<float>::infinity();
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] >= least) candidates_.push_back({logits[i], static_cast<TokenId>(i)});
  }
}

void Sampler::keep_most_likely() {
  // Equal logits in the order of their ids: the result never depends on the sort.
  const auto before = [](const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
  };
  const auto k = static_cast<std::size_t>(options_.top_k);
  if (k > 0 && k < candidates_.size()) {
    std::nth_element(candidates_.begin(), candidates_.begin() + static_cast<std::ptrdiff_t>(k),
                     candidates_.end(), before);
    candidates_.resize(k);
  }
  std::sort(candidates_.begin(), candidates_.end(), before);
  const float best = candidates_.front().logit;
  if (options_.top_p < 1) {
    double total = 0;
    for (const Candidate& candidate : candidates_) total += std::exp(candidate.logit - best);
    double sum = 0;
    std::size_t keep = 0;
    while (keep < candidates_.size() && sum < static_cast<double>(options_.top_p) * total) {
      sum += std::exp(candidates_[keep++].logit - best);
    }
    candidates_.resize(std::max<std::size_t>(keep, 1));
  }
  if (options_.min_p > 0) {
    const float least = best + std::log(options_.min_p);
    while (candidates_.size() > 1 && candidates_.back().logit < least) candidates_.pop_back();
  }
}

TokenId Sampler::sample(std::span<const float> logits, std::span<const TokenId> recent) {
  if (options_.temperature == 0 && options_.repetition_penalty == 1.0f) {
    return static_cast<TokenId>(kernels::kernels().argmax_row(logits));
  }
  collect(logits, recent);
  if (candidates_.empty()) return static_cast<TokenId>(kernels::kernels().argmax_row(logits));
  if (options_.temperature == 0) {
    return std::max_element(
               candidates_.begin(), candidates_.end(),
               [](const Candidate& a, const Candidate& b) { return a.logit < b.logit; })
        ->token;
  }
  keep_most_likely();
  const double best = candidates_.front().logit;
  double total = 0;
  for (const Candidate& candidate : candidates_) {
    total += std::exp((static_cast<double>(candidate.logit) - best) / options_.temperature);
  }
  double left = static_cast<double>(random_.uniform()) * total;
  for (const Candidate& candidate : candidates_) {
    left -= std::exp((static_cast<double>(candidate.logit) - best) / options_.temperature);
    if (left < 0) return candidate.token;
  }
  return candidates_.back().token;
}

double log_probability(std::span<const float> logits, TokenId token) {
  return static_cast<double>(logits[static_cast<std::size_t>(token)]) -
         kernels::kernels().log_sum_exp_one_pass(logits);
}

}  // namespace hone::engine

// From logits to the next token.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/random.h"
#include "base/status.h"
#include "formats/vocabulary.h"

namespace hone::engine {

using formats::TokenId;

// Applied in this order: repetition penalty, top k, top p, min p, temperature. Defaults are those
// of llama.cpp, so that users find the behaviour they know.
struct SamplingOptions {
  float temperature = 0.8f;             // 0: the most likely token, always
  std::int32_t top_k = 40;              // 0: off
  float top_p = 0.95f;                  // 1: off (Holtzman et al. 2020)
  float min_p = 0.05f;                  // 0: off (Nguyen et al. 2024)
  float repetition_penalty = 1.0f;      // 1: off (Keskar et al. 2019)
  std::int32_t repetition_window = 64;  // of the last tokens
  std::uint64_t seed = 0;
};

Status check(const SamplingOptions& options);

class Sampler {
 public:
  // Draw i of a stream is the same whatever else runs: batches do not change what is sampled.
  explicit Sampler(const SamplingOptions& options, std::uint64_t stream = 0)
      : options_(options), random_(options.seed, stream) {}

  // `recent`: the tokens so far, for the repetition penalty.
  TokenId sample(std::span<const float> logits, std::span<const TokenId> recent);

 private:
  struct Candidate {
    float logit;
    TokenId token;
  };
  void collect(std::span<const float> logits, std::span<const TokenId> recent);
  void keep_most_likely();

  SamplingOptions options_;
  Random random_;
  std::vector<Candidate> candidates_;  // reused
  std::vector<float> penalized_;
};

// log softmax(logits)[token].
double log_probability(std::span<const float> logits, TokenId token);

}  // namespace hone::engine

// A batch of whole sequences: what programs that learn are run on.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"
#include "models/family.h"
#include "runtime/program.h"

namespace hone::feedback {

// Some whole sequences in a row, and what their tokens are to predict.
struct TokenBatch {
  std::vector<std::int32_t> tokens;      // (N)
  std::vector<std::int32_t> positions;   // (N), from 0 in every sequence
  std::vector<std::int32_t> offsets{0};  // (S + 1)
  std::vector<std::int32_t> rows;        // (M): the tokens that predict
  std::vector<std::int32_t> targets;     // (M): what follows them
  std::vector<float> weights;            // (M): of each loss in the sum
  // Questions with several answers to choose from: which choice each row belongs to, and which
  // question each choice; a question's choices stand together, the right one first. Empty: none.
  std::vector<std::int32_t> row_choices;       // (M)
  std::vector<std::int32_t> choice_questions;  // (choices)
  // Seed and step, for what is drawn by chance (dropout): the same numbers, the same draws.
  std::array<std::int32_t, 2> draws{0, 0};

  // Adds a sequence; learn[i] tells whether tokens[i] is a target. `weight` is of each loss. So
  // many `placeholders` take the positions in front of it, for virtual tokens.
  void add(std::span<const std::int32_t> sequence, std::span<const std::uint8_t> learn,
           float weight = 1.0F, std::int64_t placeholders = 0);
  std::int64_t sequences() const { return static_cast<std::int64_t>(offsets.size()) - 1; }
};

// The input that stands for what the layers below gave, (N, width) f32.
inline constexpr const char* kBelowName = "below";

// The shape of a program that runs the batch, rounded up with an extra sequence and with rows of
// weight 0, so that batches of about one size share a program. kInvalidArgument: no token, or no
// row.
Result<models::Batch> shape_of(const TokenBatch& batch);

// A batch as the inputs of a program of a shape: a last sequence of tokens 0 that nothing reads,
// and rows of weight 0, make up what it lacks.
class BatchInputs {
 public:
  BatchInputs(const TokenBatch& batch, const models::Batch& shape);

  const TokenBatch& whole() const { return whole_; }
  // `below`: of programs that begin above some layers, what those gave (kept_layers.h).
  std::vector<std::span<const std::byte>> bind(const runtime::Program& program,
                                               std::span<const float> below = {}) const;

 private:
  TokenBatch whole_;
  std::vector<std::int32_t> slots_;
  std::vector<std::int32_t> pages_;
};

}  // namespace hone::feedback

// The reference of attention among the tokens of a batch: forward and gradient share the weights.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <vector>

#include "ops/support.h"

namespace hone::ops {

// Operands 0 to 3 of both ops: queries (N, H * D), keys and values (N, KV * D), offsets (S + 1).
bool is_sequence_attention(Types operands, const Attributes& attributes);

// What one query head of one token sees: the tokens `first` .. its own.
struct SequenceScores {
  std::size_t token = 0, head = 0, first = 0;
  std::vector<double> scores;  // scaled and capped
  std::vector<double> slopes;  // of the scores by the dot products of queries and keys
};

// Calls f for every token and head.
void for_each_query(const Evaluation& evaluation,
                    const std::function<void(const SequenceScores&)>& f);

// Sizes of an evaluation.
struct SequenceSizes {
  std::size_t heads, kv_heads, head_size;
  // Where a head's elements begin.
  std::size_t query(std::size_t token, std::size_t head) const {
    return (token * heads + head) * head_size;
  }
  std::size_t key(std::size_t token, std::size_t head) const {
    return (token * kv_heads + head / (heads / kv_heads)) * head_size;
  }
};
SequenceSizes sequence_sizes(const Evaluation& evaluation);

// The examples of all three ops: batches that are ragged, with windows, caps and padding. `more`
// gives the operands behind the first four by the types of queries, keys and log_sum (N, H).
std::vector<Example> sequence_examples(
    double tolerance,
    const std::function<std::vector<ExampleOperand>(const Type& queries, const Type& keys,
                                                    const Type& log_sum)>& more);

// Multiply-adds counted as two: `products` of the sizes of scores by head, for the largest work
// that the shapes can mean (one sequence).
Cost sequence_cost(Types operands, Types results, const Attributes& attributes, double products);

}  // namespace hone::ops

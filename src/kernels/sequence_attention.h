// Attention among the tokens of one sequence, forward and backward, never holding all scores.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace hone::kernels {

// Queries that are packed together and keys that are walked together. Work may be cut between
// threads at multiples of these: the bits of a result depend on the sequence and the instruction
// set alone, never on the cuts.
inline constexpr int kSequenceQueries = 64;
inline constexpr int kSequenceKeys = 72;

// One sequence. Query head h reads kv head h / (heads / kv_heads); a token sees the keys up to its
// own, and with a window only that many of them.
struct SequenceShape {
  int tokens = 0;
  int heads = 1;
  int kv_heads = 1;
  int head_size = 64;  // D: a positive multiple of 8
  float scale = 1.0F;
  int window = 0;         // 0: none
  float soft_cap = 0.0F;  // 0: none; else score -> soft_cap * tanh(score / soft_cap)

  std::size_t query_stride() const {
    return static_cast<std::size_t>(heads) * static_cast<std::size_t>(head_size);
  }
  std::size_t key_stride() const {
    return static_cast<std::size_t>(kv_heads) * static_cast<std::size_t>(head_size);
  }
};

// out[t][head] and log_sum[t][head] for the queries [first_query, last_query) of one head.
struct SequenceAttentionTask {
  SequenceShape shape;
  const float* queries = nullptr;  // (tokens, heads, D)
  const float* keys = nullptr;     // (tokens, kv_heads, D)
  const float* values = nullptr;   // (tokens, kv_heads, D)
  float* out = nullptr;            // (tokens, heads, D)
  float* log_sum = nullptr;        // (tokens, heads): ln of the sum of e^score
  int head = 0;
  int first_query = 0;  // a multiple of kSequenceQueries
  int last_query = 0;
  std::span<std::byte> scratch;  // sequence_attention_scratch_bytes(D), one for each thread
};

// Gradients from what one kv head's query heads [first_head, last_head), queries [first_query,
// last_query) and keys [first_key, last_key) have to do with each other. Either of both parts:
//   d_queries  written for these heads and queries; give all keys and any heads
//   d_keys, d_values  written for these keys; give all heads of the kv head and all queries
struct SequenceGradientTask {
  SequenceShape shape;
  const float* queries = nullptr;
  const float* keys = nullptr;
  const float* values = nullptr;
  const float* out = nullptr;
  const float* log_sum = nullptr;
  const float* d_out = nullptr;  // (tokens, heads, D)
  float* d_queries = nullptr;    // (tokens, heads, D), or null
  float* d_keys = nullptr;       // (tokens, kv_heads, D), or null
  float* d_values = nullptr;     // with d_keys
  int first_head = 0;            // query heads of one kv head
  int last_head = 0;
  int first_query = 0;  // a multiple of kSequenceQueries
  int last_query = 0;
  int first_key = 0;  // a multiple of kSequenceKeys
  int last_key = 0;
  std::span<std::byte> scratch;  // sequence_attention_scratch_bytes(D), one for each thread
};

// How out[t][head] changes along changes of queries, keys and values, for the queries [first_query,
// last_query) of one head.
struct SequenceTangentTask {
  SequenceShape shape;
  const float* queries = nullptr;
  const float* keys = nullptr;
  const float* values = nullptr;
  const float* out = nullptr;
  const float* log_sum = nullptr;
  const float* query_changes = nullptr;  // as queries
  const float* key_changes = nullptr;    // as keys
  const float* value_changes = nullptr;  // as values
  float* out_changes = nullptr;          // (tokens, heads, D)
  int head = 0;
  int first_query = 0;  // a multiple of kSequenceQueries
  int last_query = 0;
  std::span<std::byte> scratch;  // sequence_attention_scratch_bytes(D), one for each thread
};

// Bytes of any scratch, any alignment.
std::size_t sequence_attention_scratch_bytes(int head_size);

}  // namespace hone::kernels

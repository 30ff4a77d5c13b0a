// Attention over a paged cache of keys and values, page by page, never holding all scores.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace hone::kernels {

inline constexpr int kPageTokens = 32;

// Rows (token, head) that share one walk over the pages: sizes the scratch, never shows in results.
inline constexpr int kAttentionBlockRows = 96;

enum class CacheKind : std::uint8_t {
  kF16,  // rounded to nearest, saturated at +-65504
  kI8,   // round(x / s), s = max |x| / 127 of one (kv head, token), kept as f32
  kF32,  // exact: what the other kinds are compared with
};

// The bytes of one page (32 tokens of one sequence in one layer). A page is kv_heads blocks in a
// row, each (with D = head_size and e = element_bytes):
//   keys    [D][32 tokens] elements, so that one load holds one dimension of many tokens
//   values  [32 tokens][D] elements
// and behind the elements of either, for kI8 alone, the scales [32 tokens] f32.
// Every block is a multiple of 128 bytes if D is a multiple of 8. Unused tokens may hold anything.
struct CacheLayout {
  CacheKind kind = CacheKind::kF16;
  int kv_heads = 1;
  int head_size = 64;  // D: a positive multiple of 8

  constexpr std::size_t element_bytes() const {
    return kind == CacheKind::kI8 ? 1 : kind == CacheKind::kF16 ? 2 : 4;
  }
  // Bytes of one kv head in a page; the same for keys and for values.
  constexpr std::size_t block_bytes() const {
    const std::size_t elements = std::size_t{kPageTokens} * static_cast<std::size_t>(head_size);
    return elements * element_bytes() + (kind == CacheKind::kI8 ? kPageTokens * sizeof(float) : 0);
  }
  constexpr std::size_t page_bytes_key() const {
    return block_bytes() * static_cast<std::size_t>(kv_heads);
  }
  constexpr std::size_t page_bytes_value() const { return page_bytes_key(); }
};

// Writes one token's key and value, (kv_heads, D) f32 each, into slot `token_in_page` of a page.
void cache_store(const CacheLayout& layout, std::span<std::byte> key_page,
                 std::span<std::byte> value_page, int token_in_page, std::span<const float> key,
                 std::span<const float> value);

// Consecutive tokens of one sequence, some of their heads. Position p's key and value are in slot
// p % 32 of page pages[p / 32] of the pools (page i begins at byte i * page_bytes_key()); those of
// the queried tokens are already there. Pages wholly before the window of the first token are not
// read: their entries may be anything.
//
// out[t][h] = sum_p softmax_p(cap(scale * q[t][h] . k[p])) v[p] over the positions p that token t
// sees: p <= position(t), and p > position(t) - window if window > 0. Query head h reads kv head
// h / (query_heads / kv_heads). cap(x) = soft_cap * tanh(x / soft_cap) if soft_cap > 0, else x.
//
// The bits of out[t][h] depend on q[t][h], the cache and the instruction set alone, never on which
// other tokens and heads are in the call: a step by step decode equals a prefill in any chunks.
struct AttentionTask {
  CacheLayout layout;
  std::span<const std::byte> key_pool;    // any alignment; 64 bytes is fastest
  std::span<const std::byte> value_pool;  // any alignment; 64 bytes is fastest
  std::span<const std::int32_t> pages;    // the sequence's page table, ceil(positions / 32)

  const float* queries = nullptr;  // (tokens, query_heads, D) f32, rows query_stride floats apart
  std::size_t query_stride = 0;    // floats between tokens, at least query_heads * D
  float* out = nullptr;            // (tokens, query_heads, D) f32; must not overlap the queries
  std::size_t out_stride = 0;      // floats between tokens
  int query_heads = 1;             // a multiple of layout.kv_heads
  int tokens = 1;
  int first_position = 0;  // of the first token
  int first_head = 0;      // query heads [first_head, last_head) are computed, so that threads can
  int last_head = 1;       // share a call; multiples of query_heads / kv_heads waste no reads

  float scale = 1.0F;     // usually 1 / sqrt(D)
  int window = 0;         // 0: none
  float soft_cap = 0.0F;  // 0: none

  std::span<std::byte> scratch;  // attention_scratch_bytes(layout), one for each thread
};

// Bytes of AttentionTask::scratch (any alignment): depends on head_size alone.
std::size_t attention_scratch_bytes(const CacheLayout& layout);

void attention(const AttentionTask& task);

}  // namespace hone::kernels

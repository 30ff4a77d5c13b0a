// Attention on the best instruction set, and the size of its scratch.
// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention.h"

#include "kernels/registry.h"

namespace hone::kernels {

void cache_store(const CacheLayout& layout, std::span<std::byte> key_page,
                 std::span<std::byte> value_page, int token_in_page, std::span<const float> key,
                 std::span<const float> value) {
  kernels().paged_store(layout, key_page, value_page, token_in_page, key, value);
}

// What attention.inl's BlockScratch holds, and what its alignment to 64 bytes may skip.
std::size_t attention_scratch_bytes(const CacheLayout& layout) {
  constexpr std::size_t kBlockRows = kAttentionBlockRows;
  const std::size_t head_size = static_cast<std::size_t>(layout.head_size);
  const std::size_t floats =
      2 * kBlockRows * head_size + 2 * kPageTokens * head_size + kBlockRows * 16 + kBlockRows + 16;
  return floats * sizeof(float) + 64;
}

void attention(const AttentionTask& task) { kernels().paged_attention(task); }

}  // namespace hone::kernels

// The pages of keys and values: a fixed budget shared by all sequences, with prompts' common
// beginnings kept once.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <list>
#include <span>
#include <unordered_map>
#include <vector>

#include "base/status.h"
#include "formats/vocabulary.h"
#include "kernels/attention.h"
#include "runtime/execute.h"
#include "runtime/program.h"

namespace hone::engine {

using formats::TokenId;

// A page holds 32 consecutive tokens of every layer. A full page is filed under the tokens from the
// sequence's start to its end; whoever begins with the same tokens shares it. Pages that nobody
// holds stay filed until their memory is needed, oldest first.
class KvCache {
 public:
  KvCache(kernels::CacheLayout layout, std::int64_t layers, std::int64_t budget_tokens);

  std::span<const runtime::CachePages> layers() const { return layers_; }
  std::int64_t page_count() const { return static_cast<std::int64_t>(pages_.size()); }
  std::int64_t free_pages() const;
  // Bytes of one token in all layers, keys and values.
  std::int64_t bytes_per_token() const { return bytes_per_token_; }
  const kernels::CacheLayout& layout() const { return layout_; }

  // A page for writing; kOutOfMemory when all are held.
  Result<std::int32_t> take();
  void hold(std::int32_t page);
  void drop(std::int32_t page);
  // A page with the same content that only the caller holds and nobody will share: the page itself,
  // or a copy for which the caller's hold is exchanged.
  Result<std::int32_t> make_own(std::int32_t page);
  // Files a full page: `tokens` are all tokens of the sequence up to the page's end.
  void file(std::int32_t page, std::span<const TokenId> tokens);
  // Nobody will share what was computed so far: the weights have changed.
  void forget_all();
  // The longest chain of filed pages that `tokens` begins with, each held for the caller.
  std::vector<std::int32_t> share(std::span<const TokenId> tokens);

 private:
  struct Page {
    std::int32_t holders = 0;
    bool filed = false;
    std::uint64_t key = 0;
    std::vector<TokenId> tokens;  // of the whole beginning: keys may collide, tokens do not
    std::list<std::int32_t>::iterator place;  // in idle_ while filed and held by nobody
  };
  void forget(std::int32_t page);

  kernels::CacheLayout layout_;
  runtime::Workspace memory_;
  std::vector<runtime::CachePages> layers_;
  std::vector<Page> pages_;
  std::vector<std::int32_t> free_;
  std::list<std::int32_t> idle_;  // filed, held by nobody, oldest first
  std::unordered_multimap<std::uint64_t, std::int32_t> filed_;
  std::int64_t bytes_per_token_ = 0;
};

}  // namespace hone::engine

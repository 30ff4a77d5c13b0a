// SPDX-License-Identifier: Apache-2.0
#include "engine/kv_cache.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace hone::engine {
namespace {

constexpr std::size_t kTokens = kernels::kPageTokens;

// FNV-1a over token ids.
std::uint64_t key_of(std::span<const TokenId> tokens) {
  std::uint64_t key = 0xcbf29ce484222325u;
  for (const TokenId token : tokens)
    key = (key ^ static_cast<std::uint64_t>(token)) * 0x100000001b3u;
  return key;
}

}  // namespace

KvCache::KvCache(kernels::CacheLayout layout, std::int64_t layers, std::int64_t budget_tokens)
    : layout_(layout) {
  const auto pages =
      static_cast<std::size_t>((budget_tokens + kernels::kPageTokens - 1) / kernels::kPageTokens);
  pages_.resize(pages);
  for (std::size_t i = pages; i-- > 0;) free_.push_back(static_cast<std::int32_t>(i));
  bytes_per_token_ =
      static_cast<std::int64_t>(layout.page_bytes_key() + layout.page_bytes_value()) /
      kernels::kPageTokens * layers;
  // In small pages: memory that no token has reached stays out of resident memory.
  const std::size_t each = pages * layout.page_bytes_key();
  std::byte* at = memory_.reserve(2 * each * static_cast<std::size_t>(layers), false);
  for (std::int64_t layer = 0; layer < layers; ++layer, at += 2 * each) {
    layers_.push_back({layout, {at, each}, {at + each, each}});
  }
}

std::int64_t KvCache::free_pages() const {
  return static_cast<std::int64_t>(free_.size() + idle_.size());
}

void KvCache::forget(std::int32_t page) {
  Page& entry = pages_[static_cast<std::size_t>(page)];
  const auto [first, last] = filed_.equal_range(entry.key);
  for (auto at = first; at != last; ++at) {
    if (at->second == page) {
      filed_.erase(at);
      break;
    }
  }
  entry.filed = false;
  entry.tokens.clear();
}

Result<std::int32_t> KvCache::take() {
  std::int32_t page = -1;
  if (!free_.empty()) {
    page = free_.back();
    free_.pop_back();
  } else if (!idle_.empty()) {
    page = idle_.front();
    idle_.pop_front();
    forget(page);
  } else {
    return Error{ErrorCode::kOutOfMemory,
                 "the cache of keys and values is full",
                 "",
                 fmt::format("{} pages of {} tokens, all in use", pages_.size(), kTokens),
                 "a free page",
                 "raise --context, or run fewer sequences at once"};
  }
  pages_[static_cast<std::size_t>(page)].holders = 1;
  return page;
}

void KvCache::hold(std::int32_t page) {
  Page& entry = pages_[static_cast<std::size_t>(page)];
  if (entry.holders++ == 0) idle_.erase(entry.place);
}

void KvCache::drop(std::int32_t page) {
  Page& entry = pages_[static_cast<std::size_t>(page)];
  if (--entry.holders > 0) return;
  if (entry.filed) {
    entry.place = idle_.insert(idle_.end(), page);
  } else {
    free_.push_back(page);
  }
}

Result<std::int32_t> KvCache::make_own(std::int32_t page) {
  Page& entry = pages_[static_cast<std::size_t>(page)];
  if (entry.holders == 1) {
    if (entry.filed) forget(page);
    return page;
  }
  auto copy = take();
  if (!copy) return copy;
  const std::size_t bytes = layout_.page_bytes_key();
  for (const runtime::CachePages& layer : layers_) {
    for (const std::span<std::byte> pool : {layer.keys, layer.values}) {
      std::memcpy(pool.data() + static_cast<std::size_t>(*copy) * bytes,
                  pool.data() + static_cast<std::size_t>(page) * bytes, bytes);
    }
  }
  drop(page);
  return copy;
}

void KvCache::file(std::int32_t page, std::span<const TokenId> tokens) {
  Page& entry = pages_[static_cast<std::size_t>(page)];
  if (entry.filed) return;
  entry.filed = true;
  entry.key = key_of(tokens);
  entry.tokens.assign(tokens.begin(), tokens.end());
  filed_.emplace(entry.key, page);
}

void KvCache::forget_all() {
  for (std::size_t i = 0; i < pages_.size(); ++i) {
    if (!pages_[i].filed) continue;
    const auto page = static_cast<std::int32_t>(i);
    if (pages_[i].holders == 0) {
      idle_.erase(pages_[i].place);
      free_.push_back(page);
    }
    forget(page);
  }
}

std::vector<std::int32_t> KvCache::share(std::span<const TokenId> tokens) {
  std::vector<std::int32_t> chain;
  for (std::size_t end = kTokens; end <= tokens.size(); end += kTokens) {
    const auto beginning = tokens.first(end);
    const auto [first, last] = filed_.equal_range(key_of(beginning));
    const auto match = std::find_if(first, last, [&](const auto& item) {
      return std::ranges::equal(pages_[static_cast<std::size_t>(item.second)].tokens, beginning);
    });
    if (match == last) break;
    hold(match->second);
    chain.push_back(match->second);
  }
  return chain;
}

}  // namespace hone::engine

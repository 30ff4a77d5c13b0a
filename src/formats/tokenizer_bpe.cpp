// Byte pair encoding of one word: a scan for short words, a heap over a linked list for long ones.
// SPDX-License-Identifier: Apache-2.0
#include "formats/tokenizer_bpe.h"

#include <algorithm>
#include <limits>
#include <string>

#include <fmt/format.h>

namespace hone::formats {
namespace {

constexpr std::size_t kScanned = 48;  // symbols up to which scanning beats the heap
constexpr std::uint32_t kNoRank = std::numeric_limits<std::uint32_t>::max();

void merge_by_scan(const MergeTable& merges, std::vector<TokenId>& symbols) {
  Merge pairs[kScanned];  // of symbol i and i + 1
  std::size_t count = symbols.size();
  const auto look_up = [&](std::size_t i) {
    const Merge* merge = merges.find(symbols[i], symbols[i + 1]);
    pairs[i] = merge != nullptr ? *merge : Merge{kNoRank, kNoToken};
  };
  for (std::size_t i = 0; i + 1 < count; ++i) look_up(i);
  while (count > 1) {
    std::size_t best = 0;
    for (std::size_t i = 1; i + 1 < count; ++i) {
      if (pairs[i].rank < pairs[best].rank) best = i;
    }
    if (pairs[best].rank == kNoRank) break;
    symbols[best] = pairs[best].id;
    std::copy(symbols.begin() + best + 2, symbols.begin() + count, symbols.begin() + best + 1);
    if (best + 2 < count) std::copy(pairs + best + 2, pairs + count - 1, pairs + best + 1);
    --count;
    if (best > 0) look_up(best - 1);
    if (best + 1 < count) look_up(best);
  }
  symbols.resize(count);
}

void merge_by_heap(const MergeTable& merges, BpeScratch& scratch) {
  std::vector<TokenId>& symbols = scratch.symbols;
  const auto count = static_cast<std::int32_t>(symbols.size());
  auto& next = scratch.next;
  auto& previous = scratch.previous;
  auto& heap = scratch.heap;
  next.resize(symbols.size());
  previous.resize(symbols.size());
  heap.clear();
  const auto later = [](const BpeScratch::Candidate& a, const BpeScratch::Candidate& b) {
    return a.rank != b.rank ? a.rank > b.rank : a.left > b.left;
  };
  const auto candidate_at = [&](std::int32_t left) {
    const std::int32_t right = next[left];
    if (right < 0) return false;
    const Merge* merge = merges.find(symbols[left], symbols[right]);
    if (merge == nullptr) return false;
    heap.push_back(
        {merge->rank, static_cast<std::uint32_t>(left), symbols[left], symbols[right], merge->id});
    return true;
  };
  for (std::int32_t i = 0; i < count; ++i) {
    next[i] = i + 1 < count ? i + 1 : -1;
    previous[i] = i - 1;
  }
  for (std::int32_t i = 0; i + 1 < count; ++i) candidate_at(i);
  std::make_heap(heap.begin(), heap.end(), later);
  // A symbol that was merged into its left neighbour is marked by pointing to itself.
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), later);
    const BpeScratch::Candidate candidate = heap.back();
    heap.pop_back();
    const auto left = static_cast<std::int32_t>(candidate.left);
    if (next[left] == left || symbols[left] != candidate.left_id) continue;
    const std::int32_t right = next[left];
    if (right < 0 || symbols[right] != candidate.right_id) continue;
    symbols[left] = candidate.merged;
    next[left] = next[right];
    if (next[left] >= 0) previous[next[left]] = left;
    next[right] = right;
    if (candidate_at(left)) std::push_heap(heap.begin(), heap.end(), later);
    if (previous[left] >= 0 && candidate_at(previous[left])) {
      std::push_heap(heap.begin(), heap.end(), later);
    }
  }
  std::size_t kept = 0;
  for (std::int32_t i = 0; i >= 0; i = next[i]) symbols[kept++] = symbols[i];
  symbols.resize(kept);
}

}  // namespace

Result<MergeTable> make_merge_table(const Vocabulary& vocabulary, const TextIndex& index) {
  MergeTable table;
  table.reserve(vocabulary.merges.size());
  std::string merged;
  for (std::size_t rank = 0; rank < vocabulary.merges.size(); ++rank) {
    const std::string_view both = vocabulary.merges[rank];
    const std::uint32_t split = std::min<std::uint32_t>(vocabulary.merge_splits[rank],
                                                        static_cast<std::uint32_t>(both.size()));
    const TokenId left = index.find(vocabulary.tokens, both.substr(0, split));
    const TokenId right = index.find(vocabulary.tokens, both.substr(split));
    const TokenId id = index.find(vocabulary.tokens, both);
    if (left == kNoToken || right == kNoToken || id == kNoToken) {
      return Error{ErrorCode::kCorrupt,
                   "a merge of the tokenizer names a token that is not there",
                   fmt::format("merge {}", rank),
                   fmt::format("'{}' + '{}'", both.substr(0, split), both.substr(split)),
                   "both parts and the whole in the vocabulary",
                   ""};
    }
    table.insert(left, right, {static_cast<std::uint32_t>(rank), id});
  }
  return table;
}

void merge_by_rank(const MergeTable& merges, BpeScratch& scratch) {
  if (scratch.symbols.size() < 2) return;
  if (scratch.symbols.size() <= kScanned) return merge_by_scan(merges, scratch.symbols);
  merge_by_heap(merges, scratch);
}

}  // namespace hone::formats

// Attention over a paged cache: walks heads, blocks of query rows and pages; and stores tokens.
// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include "kernels/attention.h"
#include "kernels/attention_tile.h"

namespace hone::kernels::HONE_ISA_NAMESPACE {
namespace {

constexpr int kBlockRows = kAttentionBlockRows;
// More rows than this need several tiles: then converting a page once is cheaper than in each.
constexpr int kDirectRows = kValueRows;

using Part = hn::CappedTag<float, 8>;  // head_size is a multiple of 8

// The parts of AttentionTask::scratch; attention_scratch_bytes counts the same.
struct BlockScratch {
  float* queries;  // [kBlockRows][D]
  float* outputs;  // [kBlockRows][D]
  float* keys;     // [D][32]
  float* values;   // [32][D]
  float* sums;     // [kBlockRows][16]
  float* maxima;   // [kBlockRows + 16]
};

HWY_INLINE BlockScratch divide_scratch(std::byte* scratch, std::size_t head_size) {
  const auto address = reinterpret_cast<std::uintptr_t>(scratch);
  float* next = reinterpret_cast<float*>(scratch + (64 - address % 64) % 64);
  BlockScratch parts;
  parts.queries = next;
  parts.outputs = parts.queries + kBlockRows * head_size;
  parts.keys = parts.outputs + kBlockRows * head_size;
  parts.values = parts.keys + kPageTokens * head_size;
  parts.sums = parts.values + kPageTokens * head_size;
  parts.maxima = parts.sums + kBlockRows * 16;
  return parts;
}

// The rows of one kv head: row = token * heads + head.
struct HeadGroup {
  int kv_head;
  int first_head;
  int heads;
};

HWY_INLINE int clamp_to(int value, int low, int high) {
  return value < low ? low : value > high ? high : value;
}

// What one token sees of the page that begins at position `page_begin`.
HWY_INLINE Seen seen_in_page(const AttentionTask& task, int token, int page_begin) {
  const int position = task.first_position + token;
  const int oldest = task.window > 0 ? position - task.window + 1 : 0;
  return {clamp_to(oldest - page_begin, 0, kPageTokens),
          clamp_to(position + 1 - page_begin, 0, kPageTokens)};
}

template <class Element>
HWY_INLINE PageBlock<Element> page_block(const AttentionTask& task, int page, int kv_head) {
  const std::size_t block = task.layout.block_bytes();
  const std::size_t elements =
      static_cast<std::size_t>(kPageTokens) * static_cast<std::size_t>(task.layout.head_size);
  const std::size_t index = static_cast<std::size_t>(task.pages[static_cast<std::size_t>(page)]);
  const std::size_t offset =
      (index * static_cast<std::size_t>(task.layout.kv_heads) + static_cast<std::size_t>(kv_head)) *
      block;
  PageBlock<Element> result;
  result.keys = reinterpret_cast<const Element*>(task.key_pool.data() + offset);
  result.values = reinterpret_cast<const Element*>(task.value_pool.data() + offset);
  result.key_scales = result.value_scales = nullptr;
  result.next_keys = result.keys;
  result.next_values = result.values;
  if constexpr (sizeof(Element) == 1) {
    result.key_scales = reinterpret_cast<const float*>(result.keys + elements);
    result.value_scales = reinterpret_cast<const float*>(result.values + elements);
  }
  return result;
}

template <class Element>
HWY_NOINLINE PageBlock<float> convert_page(const PageBlock<Element>& page, std::size_t head_size,
                                           const BlockScratch& scratch) {
  const F32 f32;
  for (std::size_t i = 0; i < kPageTokens * head_size; i += kLanes) {
    hn::Store(load_elements(f32, page.keys + i), f32, scratch.keys + i);
    hn::Store(load_elements(f32, page.values + i), f32, scratch.values + i);
  }
  return {scratch.keys,      scratch.values, page.key_scales,
          page.value_scales, scratch.keys,   scratch.values};
}

// Some rows of a block against one page.
template <class Element>
class PageWalk {
 public:
  HWY_INLINE PageWalk(const AttentionTask& task, int heads, int page_begin, const ScoreRule& rule,
                      const PageBlock<Element>& page)
      : task_(task),
        head_size_(static_cast<std::size_t>(task.layout.head_size)),
        heads_(heads),
        page_begin_(page_begin),
        plain_(task.layout.kind != CacheKind::kI8 && rule.cap == 0.0F),
        rule_(rule),
        page_(page) {}

  // kPartial: each row sees a part of its own. Values that a row does not see are not even
  // multiplied by 0, as they may be NaN.
  template <bool kPartial>
  HWY_INLINE void rows(int first_row, int count, TileState state) {
    for (int left = count; left > 0;) {
      const int tile = even_share(left, kTileRows);
      scores(tile, state);
      const auto seen_of_row = [&](int r) {
        return kPartial ? seen_in_page(task_, (first_row + r) / heads_, page_begin_)
                        : Seen{0, kPageTokens};
      };
      if (plain_) {
        softmax_tile<kPartial, true>(tile, state, rule_, nullptr, nullptr, seen_of_row, scratch_);
      } else {
        softmax_tile<kPartial, false>(tile, state, rule_, page_.key_scales, page_.value_scales,
                                      seen_of_row, scratch_);
      }
      for (int row = 0; row < tile;) {
        // Rows of the same token see the same.
        const int alike = kPartial ? heads_ - (first_row + row) % heads_ : tile;
        const int run = even_share(alike < tile - row ? alike : tile - row, kValueRows);
        value_rows(run, page_, head_size_, seen_of_row(row), scratch_, row,
                   state.outputs + static_cast<std::size_t>(row) * head_size_);
        row += run;
      }
      const std::size_t done = static_cast<std::size_t>(tile);
      state.queries += done * state.query_stride;
      state.outputs += done * head_size_;
      state.sums += done * kLanes;
      state.maxima += done;
      first_row += tile;
      left -= tile;
    }
  }

 private:
  HWY_INLINE void scores(int count, const TileState& state) {
    for (int row = 0; row < count;) {
      const int share = even_share(count - row, kScoreRows);
      score_rows(share, state, page_, head_size_, row, scratch_);
      row += share;
    }
  }

  const AttentionTask& task_;
  std::size_t head_size_;
  int heads_;
  int page_begin_;
  bool plain_;
  ScoreRule rule_;
  PageBlock<Element> page_;
  TileScratch scratch_;
};

// The state of row `row` of a block.
HWY_INLINE TileState row_state(const TileState& first, int row, std::size_t head_size) {
  const std::size_t r = static_cast<std::size_t>(row);
  return {first.queries + r * first.query_stride, first.query_stride, first.sums + r * kLanes,
          first.maxima + r, first.outputs + r * head_size};
}

// Rows [begin, end) of a group against one page; the first and the last rows may see parts of it.
template <class Element>
HWY_NOINLINE void block_page(const AttentionTask& task, const HeadGroup& group, int begin, int end,
                             int page_begin, const PageBlock<Element>& page, const TileState& state,
                             const ScoreRule& rule) {
  const std::size_t head_size = static_cast<std::size_t>(task.layout.head_size);
  const int heads = group.heads;
  const int first_token = begin / heads;
  const int last_token = (end - 1) / heads;
  // Tokens that see anything of the page, then those among them that see all of it.
  int some_from = page_begin - task.first_position;
  int all_from = some_from + kPageTokens - 1;
  int some_to = last_token;
  int all_to = last_token;
  if (task.window > 0) {
    some_to = page_begin + kPageTokens - 1 + task.window - 1 - task.first_position;
    all_to = page_begin + task.window - 1 - task.first_position;
  }
  some_from = clamp_to(some_from, first_token, last_token + 1);
  some_to = clamp_to(some_to, some_from - 1, last_token);
  all_from = clamp_to(all_from, some_from, some_to + 1);
  all_to = clamp_to(all_to, all_from - 1, some_to);

  const auto row_of = [&](int token) { return clamp_to(token * heads, begin, end); };
  const int partial_row = row_of(some_from);
  const int whole_row = row_of(all_from);
  const int second_row = row_of(all_to + 1);
  const int end_row = row_of(some_to + 1);
  PageWalk<Element> walk(task, heads, page_begin, rule, page);
  if (whole_row > partial_row) {
    walk.template rows<true>(partial_row, whole_row - partial_row,
                             row_state(state, partial_row - begin, head_size));
  }
  if (second_row > whole_row) {
    walk.template rows<false>(whole_row, second_row - whole_row,
                              row_state(state, whole_row - begin, head_size));
  }
  if (end_row > second_row) {
    walk.template rows<true>(second_row, end_row - second_row,
                             row_state(state, second_row - begin, head_size));
  }
}

HWY_INLINE const float* query_row(const AttentionTask& task, const HeadGroup& group, int row) {
  const std::size_t head = static_cast<std::size_t>(group.first_head + row % group.heads);
  return task.queries + static_cast<std::size_t>(row / group.heads) * task.query_stride +
         head * static_cast<std::size_t>(task.layout.head_size);
}

HWY_INLINE void start_block(const AttentionTask& task, const HeadGroup& group, int begin, int end,
                            const BlockScratch& scratch, TileState& state) {
  const Part part;
  const std::size_t head_size = static_cast<std::size_t>(task.layout.head_size);
  const std::size_t rows = static_cast<std::size_t>(end - begin);
  state = {scratch.queries, head_size, scratch.sums, scratch.maxima, scratch.outputs};
  if (task.tokens == 1) {
    state.queries = query_row(task, group, begin);  // already row after row
  } else {
    for (std::size_t r = 0; r < rows; ++r) {
      const float* from = query_row(task, group, begin + static_cast<int>(r));
      float* to = scratch.queries + r * head_size;
      for (std::size_t d = 0; d < head_size; d += hn::MaxLanes(part)) {
        hn::Store(hn::LoadU(part, from + d), part, to + d);
      }
    }
  }
  std::memset(state.outputs, 0, rows * head_size * sizeof(float));
  std::memset(state.sums, 0, rows * kLanes * sizeof(float));
  for (std::size_t r = 0; r < rows + kLanes; ++r) state.maxima[r] = kMasked;
}

HWY_INLINE void finish_block(const AttentionTask& task, const HeadGroup& group, int begin, int end,
                             const TileState& state) {
  const F32 f32;
  const Part part;
  const std::size_t head_size = static_cast<std::size_t>(task.layout.head_size);
  for (int row = begin; row < end; ++row) {
    const std::size_t r = static_cast<std::size_t>(row - begin);
    const float sum = hn::GetLane(hn::SumOfLanes(f32, hn::Load(f32, state.sums + r * kLanes)));
    const auto inverse = hn::Set(part, 1.0F / sum);
    const std::size_t head = static_cast<std::size_t>(group.first_head + row % group.heads);
    float* out =
        task.out + static_cast<std::size_t>(row / group.heads) * task.out_stride + head * head_size;
    for (std::size_t c = 0; c < head_size; c += hn::MaxLanes(part)) {
      hn::StoreU(hn::Mul(hn::LoadU(part, state.outputs + r * head_size + c), inverse), part,
                 out + c);
    }
  }
}

template <class Element>
HWY_NOINLINE void attend_block(const AttentionTask& task, const HeadGroup& group, int begin,
                               int end, const BlockScratch& scratch, const ScoreRule& rule) {
  const std::size_t head_size = static_cast<std::size_t>(task.layout.head_size);
  TileState state;
  start_block(task, group, begin, end, scratch, state);
  const int first_position = task.first_position + begin / group.heads;
  const int last_position = task.first_position + (end - 1) / group.heads;
  const int oldest =
      task.window > 0 ? clamp_to(first_position - task.window + 1, 0, first_position) : 0;
  const int last_page = last_position / kPageTokens;
  PageBlock<Element> next = page_block<Element>(task, oldest / kPageTokens, group.kv_head);
  for (int page = oldest / kPageTokens; page <= last_page; ++page) {
    PageBlock<Element> block = next;
    if (page < last_page) {
      next = page_block<Element>(task, page + 1, group.kv_head);
      block.next_keys = next.keys;
      block.next_values = next.values;
    }
    const int page_begin = page * kPageTokens;
    if (sizeof(Element) < sizeof(float) && end - begin > kDirectRows) {
      block_page(task, group, begin, end, page_begin, convert_page(block, head_size, scratch),
                 state, rule);
    } else {
      block_page(task, group, begin, end, page_begin, block, state, rule);
    }
  }
  finish_block(task, group, begin, end, state);
}

template <class Element>
HWY_INLINE void attend(const AttentionTask& task) {
  constexpr float kLog2E = 1.44269504F;
  ScoreRule rule = {task.scale * kLog2E, 0.0F};
  if (task.soft_cap > 0.0F) rule = {task.scale / task.soft_cap, task.soft_cap * kLog2E};
  const BlockScratch scratch =
      divide_scratch(task.scratch.data(), static_cast<std::size_t>(task.layout.head_size));
  const int heads_each = task.query_heads / task.layout.kv_heads;
  for (int head = task.first_head; head < task.last_head;) {
    const int kv_head = head / heads_each;
    const int group_end = (kv_head + 1) * heads_each;
    const int end = group_end < task.last_head ? group_end : task.last_head;
    const HeadGroup group = {kv_head, head, end - head};
    const int rows = task.tokens * group.heads;
    for (int begin = 0; begin < rows; begin += kBlockRows) {
      attend_block<Element>(task, group, begin,
                            rows - begin < kBlockRows ? rows : begin + kBlockRows, scratch, rule);
    }
    head = end;
  }
}

}  // namespace

void paged_attention(const AttentionTask& task) {
  switch (task.layout.kind) {
    case CacheKind::kF16: return attend<hwy::float16_t>(task);
    case CacheKind::kI8: return attend<std::int8_t>(task);
    case CacheKind::kF32: return attend<float>(task);
  }
}

}  // namespace hone::kernels::HONE_ISA_NAMESPACE

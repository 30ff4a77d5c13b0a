// Attention among the tokens of one sequence: blocks of queries walk over tiles of keys. Forward
// with a running maximum and sum, backward (Dao et al., FlashAttention, 2022, algorithms 1 and 4)
// and along a direction from the logarithm of the sum.
// SPDX-License-Identifier: Apache-2.0
#include "kernels/sequence_attention.h"
#include "kernels/sequence_tile.h"

namespace hone::kernels::HONE_ISA_NAMESPACE {
namespace {

inline constexpr float kMasked = -1e30F;
inline constexpr float kLn2 = 0.693147181F;
inline constexpr float kLog2E = 1.44269504F;

HWY_INLINE std::size_t at(int index) { return static_cast<std::size_t>(index); }

// What the panels of a block of queries see of one tile of keys.
struct BlockView {
  PanelView panels[kSequenceQueries / kPanel];
  int count = 0;
};

HWY_INLINE BlockView block_view(const SequenceShape& shape, int block_query, int block_count,
                                int tile_key, int tile_count) {
  BlockView view;
  for (int first = 0; first < block_count; first += kPanel) {
    const PanelView panel =
        panel_view(shape, block_query, block_count, first / kPanel, tile_key, tile_count);
    if (panel.key_high > panel.key_low) view.panels[view.count++] = panel;
  }
  return view;
}

// Where the scores of a panel stand, [key][lane].
struct Scores {
  float* data;
  std::size_t query_stride;  // of a panel's begin, by its first query
  std::size_t key_stride;

  HWY_INLINE Matrix of(const PanelView& panel) const {
    return {data + at(panel.first) * query_stride, key_stride};
  }
};

// scores[key][lane] (+)= of every panel for the keys that it sees: rows times packed columns.
template <bool kAdd = false>
HWY_INLINE void score_block(const BlockView& view, ConstMatrix keys, const float* across,
                            int head_size, const Scores& scores) {
  for (int p = 0; p < view.count; ++p) {
    const PanelView& panel = view.panels[p];
    const Matrix to = scores.of(panel);
    const ConstMatrix columns = {across + at(panel.first) * at(head_size), at(kPanel)};
    for (int key = panel.key_low; key < panel.key_high; key += kTileRows) {
      product_rows<F32, 2, false, kAdd>(least(kTileRows, panel.key_high - key),
                                        {keys.data + at(key) * keys.stride, keys.stride}, columns,
                                        head_size, {to.data + at(key) * to.stride, to.stride});
    }
  }
}

// sums[query] += across the keys that a query sees, weights[key][query] times rows[key]: out from
// values, or d_queries from keys.
HWY_INLINE void add_rows(const BlockView& view, int window, const Scores& weights,
                         const float* rows, int head_size, Matrix sums) {
  each_panel<true>(head_size, [&](auto multiply, std::size_t dims, int lane) HWY_ATTR {
    const float* along = rows + dims * kSequenceKeys * kPanel + lane;
    for (int p = 0; p < view.count; ++p) {
      const PanelView& panel = view.panels[p];
      const Matrix from = weights.of(panel);
      for (int query = 0; query < panel.count;) {
        const int count = tile_share(panel.count - query);
        const int last = panel.query + query + count - 1;
        const int high = least(panel.key_high, last + 1);
        const int low =
            window > 0 ? most(panel.key_low, panel.query + query - window + 1) : panel.key_low;
        if (high > low) {
          float* to = sums.data + at(panel.first + query) * sums.stride + dims * kPanel + lane;
          multiply(count, {from.data + at(low) * from.stride + query, from.stride},
                   {along + at(low) * kPanel, at(kPanel)}, high - low, {to, sums.stride});
        }
        query += count;
      }
    }
  });
}

// Scores of a panel to weights relative to the largest so far. Returns whether older sums must
// shrink; by how much stands in `shrink` then.
template <bool kMask, bool kCap>
HWY_INLINE bool soften(const PanelView& view, int window, Exponents exponents, Matrix scores,
                       float* maxima, float* sums, float* shrink) {
  const F32 d;
  const VecF32 masked = hn::Set(d, kMasked);
  const VecI32 position[2] = {positions_from(view.query),
                              positions_from(view.query + static_cast<int>(kLanes))};
  VecF32 top[2] = {masked, masked};
  for (int key = view.key_low; key < view.key_high; ++key) {
    float* score = scores.data + at(key) * scores.stride;
#pragma GCC unroll 2
    for (std::size_t half = 0; half < 2; ++half) {
      VecF32 value = hn::LoadU(d, score + half * kLanes);
      if constexpr (kCap) {
        value = hn::Mul(tanh_of(value), hn::Set(d, exponents.cap));
        hn::StoreU(value, d, score + half * kLanes);
      }
      if constexpr (kMask) {
        value = hn::IfThenElse(sees(position[half], key, window), value, masked);
      }
      top[half] = hn::Max(top[half], value);
    }
  }
  bool changed = false;
  VecF32 maximum[2];
  VecF32 sum[2];
#pragma GCC unroll 2
  for (std::size_t half = 0; half < 2; ++half) {
    const VecF32 before = hn::LoadU(d, maxima + half * kLanes);
    maximum[half] = hn::Max(before, top[half]);
    const VecF32 factor = exp2_at_least(hn::Sub(before, maximum[half]));
    changed = changed || !hn::AllTrue(d, hn::Eq(before, maximum[half]));
    hn::StoreU(maximum[half], d, maxima + half * kLanes);
    hn::StoreU(factor, d, shrink + half * kLanes);
    sum[half] = hn::Mul(hn::LoadU(d, sums + half * kLanes), factor);
  }
  for (int key = view.key_low; key < view.key_high; ++key) {
    float* score = scores.data + at(key) * scores.stride;
#pragma GCC unroll 2
    for (std::size_t half = 0; half < 2; ++half) {
      VecF32 weight = exp2_at_least(hn::Sub(hn::LoadU(d, score + half * kLanes), maximum[half]));
      if constexpr (kMask) {
        weight = hn::IfThenElseZero(sees(position[half], key, window), weight);
      }
      sum[half] = hn::Add(sum[half], weight);
      hn::StoreU(weight, d, score + half * kLanes);
    }
  }
#pragma GCC unroll 2
  for (std::size_t half = 0; half < 2; ++half) hn::StoreU(sum[half], d, sums + half * kLanes);
  return changed;
}

HWY_INLINE bool soften_any(const PanelView& view, int window, Exponents exponents, Matrix scores,
                           float* maxima, float* sums, float* shrink) {
  if (exponents.cap != 0.0F) {
    return soften<true, true>(view, window, exponents, scores, maxima, sums, shrink);
  }
  return view.whole ? soften<false, false>(view, window, exponents, scores, maxima, sums, shrink)
                    : soften<true, false>(view, window, exponents, scores, maxima, sums, shrink);
}

using Part = hn::CappedTag<float, 8>;  // head_size is a multiple of 8
inline constexpr int kPartStep = kLanes < 8 ? static_cast<int>(kLanes) : 8;

// to[0 … size) = from * factor
HWY_INLINE void scale_row(const float* from, float factor, int size, float* to) {
  const Part part;
  const auto times = hn::Set(part, factor);
  for (int d = 0; d < size; d += kPartStep) {
    hn::StoreU(hn::Mul(hn::LoadU(part, from + d), times), part, to + d);
  }
}

HWY_INLINE float dot_row(const float* a, const float* b, int size) {
  const Part part;
  auto sum = hn::Zero(part);
  for (int d = 0; d < size; d += kPartStep) {
    sum = hn::MulAdd(hn::LoadU(part, a + d), hn::LoadU(part, b + d), sum);
  }
  return hn::GetLane(hn::SumOfLanes(part, sum));
}

// The first tile of keys that a block of queries sees anything of.
HWY_INLINE int first_tile(const SequenceShape& shape, int query) {
  const int oldest = shape.window > 0 ? most(query - shape.window + 1, 0) : 0;
  return round_down(oldest, kSequenceKeys);
}

HWY_NOINLINE void attend_block(const SequenceAttentionTask& task, int block, int count,
                               const SequenceScratch& scratch) {
  const SequenceShape& shape = task.shape;
  const int size = shape.head_size;
  const std::size_t dims = round_up(size, 32);
  const std::size_t query_at = at(block) * shape.query_stride() + at(task.head) * at(size);
  const std::size_t key_at = at(task.head / (shape.heads / shape.kv_heads)) * at(size);
  const Exponents exponents = exponents_of(shape);
  float* maxima = scratch.state;
  float* sums = maxima + kSequenceQueries;
  float* shrink = sums + kSequenceQueries;
  pack_across({task.queries + query_at, shape.query_stride()}, count, size, exponents.factor,
              scratch.queries_across);
  std::memset(scratch.sums, 0, at(count) * dims * sizeof(float));
  for (int i = 0; i < kSequenceQueries; ++i) {
    maxima[i] = kMasked;
    sums[i] = 0.0F;
  }
  for (int key = first_tile(shape, block); key < block + count; key += kSequenceKeys) {
    const int keys = least(kSequenceKeys, shape.tokens - key);
    const std::size_t tile_at = key_at + at(key) * shape.key_stride();
    pack_along({task.values + tile_at, shape.key_stride()}, least(keys, block + count - key), size,
               kSequenceKeys, 1.0F, scratch.rows_along);
    const BlockView view = block_view(shape, block, count, key, keys);
    const Scores scores = {scratch.weights, at(kSequenceKeys), at(kPanel)};
    score_block(view, {task.keys + tile_at, shape.key_stride()}, scratch.queries_across, size,
                scores);
    for (int p = 0; p < view.count; ++p) {
      const PanelView& panel = view.panels[p];
      const int first = panel.first;
      const bool shrinks = soften_any(panel, shape.window, exponents, scores.of(panel),
                                      maxima + first, sums + first, shrink + first);
      for (int q = first; shrinks && q < first + panel.count; ++q) {
        float* row = scratch.sums + at(q) * dims;
        scale_row(row, shrink[q], size, row);
      }
    }
    add_rows(view, shape.window, scores, scratch.rows_along, size, {scratch.sums, dims});
  }
  for (int q = 0; q < count; ++q) {
    scale_row(scratch.sums + at(q) * dims, 1.0F / sums[q], size,
              task.out + query_at + at(q) * shape.query_stride());
    task.log_sum[at(block + q) * at(shape.heads) + at(task.head)] =
        maxima[q] * kLn2 + __builtin_logf(sums[q]);
  }
}

// Of a panel's scores and products d_out . value makes weights and d_score (without scale).
template <bool kMask, bool kCap>
HWY_INLINE void differentiate(const PanelView& view, int window, Exponents exponents, Matrix scores,
                              Matrix products, const float* log_sums, const float* means) {
  const F32 d;
  for (int half = 0; half < 2; ++half) {
    const std::size_t lane = at(half) * kLanes;
    const VecI32 position = positions_from(view.query + static_cast<int>(lane));
    const VecF32 log_sum = hn::LoadU(d, log_sums + lane);
    const VecF32 mean = hn::LoadU(d, means + lane);
    for (int key = view.key_low; key < view.key_high; ++key) {
      float* score = scores.data + at(key) * scores.stride + lane;
      float* product = products.data + at(key) * products.stride + lane;
      VecF32 value = hn::LoadU(d, score);
      VecF32 slope = hn::Set(d, 1.0F);
      if constexpr (kCap) {
        const VecF32 bent = tanh_of(value);
        slope = hn::NegMulAdd(bent, bent, slope);
        value = hn::Mul(bent, hn::Set(d, exponents.cap));
      }
      VecF32 weight = exp2_at_least(hn::Sub(value, log_sum));
      if constexpr (kMask) weight = hn::IfThenElseZero(sees(position, key, window), weight);
      hn::StoreU(weight, d, score);
      VecF32 change = hn::Mul(weight, hn::Sub(hn::LoadU(d, product), mean));
      if constexpr (kCap) change = hn::Mul(change, slope);
      hn::StoreU(change, d, product);
    }
  }
}

HWY_INLINE void differentiate_any(const PanelView& view, int window, Exponents exponents,
                                  Matrix scores, Matrix products, const float* log_sums,
                                  const float* means) {
  if (exponents.cap != 0.0F) {
    differentiate<true, true>(view, window, exponents, scores, products, log_sums, means);
  } else if (view.whole) {
    differentiate<false, false>(view, window, exponents, scores, products, log_sums, means);
  } else {
    differentiate<true, false>(view, window, exponents, scores, products, log_sums, means);
  }
}

// One block of queries of one head.
struct GradientBlock {
  int head, query, count;
  std::size_t key_at;  // where the kv head's elements begin in a row of keys
};

// Packs what the block is multiplied with: queries and d_out both ways, and its state.
HWY_NOINLINE void start_gradient(const SequenceGradientTask& task, const GradientBlock& block,
                                 Exponents exponents, const SequenceScratch& scratch) {
  const SequenceShape& shape = task.shape;
  const int size = shape.head_size;
  const std::size_t stride = shape.query_stride();
  const std::size_t begin = at(block.query) * stride + at(block.head) * at(size);
  const ConstMatrix queries = {task.queries + begin, stride};
  const ConstMatrix d_out = {task.d_out + begin, stride};
  pack_across(queries, block.count, size, exponents.factor, scratch.queries_across);
  pack_across(d_out, block.count, size, 1.0F, scratch.d_out_across);
  if (task.d_keys != nullptr) {
    pack_along(queries, block.count, size, kSequenceQueries, shape.scale, scratch.queries_along);
    pack_along(d_out, block.count, size, kSequenceQueries, 1.0F, scratch.d_out_along);
  }
  float* log_sums = scratch.state;
  float* means = log_sums + kSequenceQueries;
  for (int q = 0; q < kSequenceQueries; ++q) {
    if (q < block.count) {
      log_sums[q] = kLog2E * task.log_sum[at(block.query + q) * at(shape.heads) + at(block.head)];
      means[q] = dot_row(task.out + begin + at(q) * stride, d_out.data + at(q) * stride, size);
    } else {
      log_sums[q] = -kMasked;  // lanes without a query: weight 0
      means[q] = 0.0F;
    }
  }
}

// d_keys and d_values of the tile += what the block's queries give, by tiles of rows of keys.
HWY_INLINE void add_columns(const SequenceGradientTask& task, const GradientBlock& block, int tile,
                            int keys, const SequenceScratch& scratch) {
  const SequenceShape& shape = task.shape;
  const std::size_t stride = shape.key_stride();
  const int seen_keys = least(keys, block.query + block.count - tile);
  const auto add = [&](const float* weights, const float* rows, float* to) HWY_ATTR {
    each_panel<false>(shape.head_size, [&](auto multiply, std::size_t panel, int lane) HWY_ATTR {
      const float* along = rows + panel * kSequenceQueries * kPanel + lane;
      for (int key = 0; key < seen_keys; key += kTileRows) {
        const int count = least(kTileRows, keys - key);
        // The queries that see any of these keys, from the block's first.
        const int low = most(tile + key - block.query, 0);
        const int high =
            shape.window > 0
                ? least(block.count, tile + key + kTileRows - 1 + shape.window - block.query)
                : block.count;
        if (high <= low) continue;
        multiply(count, {weights + at(key) * kScoreStride + low, kScoreStride},
                 {along + at(low) * kPanel, at(kPanel)}, high - low,
                 {to + at(key) * stride + panel * kPanel + lane, stride});
      }
    });
  };
  const std::size_t begin = at(tile) * stride + block.key_at;
  add(scratch.weights, scratch.d_out_along, task.d_values + begin);
  add(scratch.d_scores, scratch.queries_along, task.d_keys + begin);
}

HWY_NOINLINE void gradient_block(const SequenceGradientTask& task, const GradientBlock& block,
                                 const SequenceScratch& scratch) {
  const SequenceShape& shape = task.shape;
  const int size = shape.head_size;
  const std::size_t dims = round_up(size, 32);
  const std::size_t stride = shape.key_stride();
  const Exponents exponents = exponents_of(shape);
  const int end = least(block.query + block.count, task.last_key);
  const int begin = most(first_tile(shape, block.query), task.first_key);
  if (begin >= end) return;
  start_gradient(task, block, exponents, scratch);
  if (task.d_queries != nullptr) {
    std::memset(scratch.sums, 0, at(block.count) * dims * sizeof(float));
  }
  for (int tile = begin; tile < end; tile += kSequenceKeys) {
    const int keys = least(kSequenceKeys, shape.tokens - tile);
    const std::size_t tile_at = block.key_at + at(tile) * stride;
    if (task.d_queries != nullptr) {
      pack_along({task.keys + tile_at, stride}, least(keys, end - tile), size, kSequenceKeys, 1.0F,
                 scratch.rows_along);
    }
    const BlockView view = block_view(shape, block.query, block.count, tile, keys);
    const Scores weights = {scratch.weights, 1, kScoreStride};
    const Scores d_scores = {scratch.d_scores, 1, kScoreStride};
    score_block(view, {task.keys + tile_at, stride}, scratch.queries_across, size, weights);
    score_block(view, {task.values + tile_at, stride}, scratch.d_out_across, size, d_scores);
    for (int p = 0; p < view.count; ++p) {
      const PanelView& panel = view.panels[p];
      differentiate_any(panel, shape.window, exponents, weights.of(panel), d_scores.of(panel),
                        scratch.state + panel.first,
                        scratch.state + kSequenceQueries + panel.first);
    }
    if (task.d_queries != nullptr) {
      add_rows(view, shape.window, d_scores, scratch.rows_along, size, {scratch.sums, dims});
    }
    if (task.d_keys != nullptr) add_columns(task, block, tile, keys, scratch);
  }
  if (task.d_queries == nullptr) return;
  for (int q = 0; q < block.count; ++q) {
    scale_row(
        scratch.sums + at(q) * dims, shape.scale, size,
        task.d_queries + at(block.query + q) * shape.query_stride() + at(block.head) * at(size));
  }
}

// sums[lane] += the panel's changes of weights over the keys.
HWY_INLINE void add_keys(const PanelView& view, Matrix changes, float* sums) {
  const F32 d;
  for (std::size_t half = 0; half < 2; ++half) {
    const std::size_t lane = half * kLanes;
    VecF32 sum = hn::LoadU(d, sums + lane);
    for (int key = view.key_low; key < view.key_high; ++key) {
      sum = hn::Add(sum, hn::LoadU(d, changes.data + at(key) * changes.stride + lane));
    }
    hn::StoreU(sum, d, sums + lane);
  }
}

// to = sums - along * out
HWY_INLINE void take_mean(const float* sums, float along, const float* out, int size, float* to) {
  const Part part;
  const auto factor = hn::Set(part, along);
  for (int d = 0; d < size; d += kPartStep) {
    const auto value = hn::NegMulAdd(factor, hn::LoadU(part, out + d), hn::LoadU(part, sums + d));
    hn::StoreU(value, part, to + d);
  }
}

// With weights p and the scores' changes s': out' = sum p v' + sum p s' v - (sum p s') out.
HWY_NOINLINE void tangent_block(const SequenceTangentTask& task, int block, int count,
                                const SequenceScratch& scratch) {
  const SequenceShape& shape = task.shape;
  const int size = shape.head_size;
  const std::size_t dims = round_up(size, 32);
  const std::size_t query_at = at(block) * shape.query_stride() + at(task.head) * at(size);
  const std::size_t key_at = at(task.head / (shape.heads / shape.kv_heads)) * at(size);
  const Exponents exponents = exponents_of(shape);
  const float unit = shape.scale / exponents.factor;  // of changes of scores
  float* log_sums = scratch.state;
  float* zeros = log_sums + kSequenceQueries;
  float* along = zeros + kSequenceQueries;
  pack_across({task.queries + query_at, shape.query_stride()}, count, size, exponents.factor,
              scratch.queries_across);
  pack_across({task.query_changes + query_at, shape.query_stride()}, count, size, exponents.factor,
              scratch.d_out_across);
  std::memset(scratch.sums, 0, at(count) * dims * sizeof(float));
  for (int q = 0; q < kSequenceQueries; ++q) {
    // Lanes without a query: weight 0.
    log_sums[q] = q < count ? kLog2E * task.log_sum[at(block + q) * at(shape.heads) + at(task.head)]
                            : -kMasked;
    zeros[q] = along[q] = 0.0F;
  }
  for (int key = first_tile(shape, block); key < block + count; key += kSequenceKeys) {
    const int keys = least(kSequenceKeys, shape.tokens - key);
    const int seen = least(keys, block + count - key);
    const std::size_t tile_at = key_at + at(key) * shape.key_stride();
    const BlockView view = block_view(shape, block, count, key, keys);
    const Scores weights = {scratch.weights, 1, kScoreStride};
    const Scores changes = {scratch.d_scores, 1, kScoreStride};
    const ConstMatrix rows = {task.keys + tile_at, shape.key_stride()};
    score_block(view, rows, scratch.queries_across, size, weights);
    score_block(view, rows, scratch.d_out_across, size, changes);
    score_block<true>(view, {task.key_changes + tile_at, shape.key_stride()},
                      scratch.queries_across, size, changes);
    for (int p = 0; p < view.count; ++p) {
      const PanelView& panel = view.panels[p];
      differentiate_any(panel, shape.window, exponents, weights.of(panel), changes.of(panel),
                        log_sums + panel.first, zeros + panel.first);
      add_keys(panel, changes.of(panel), along + panel.first);
    }
    pack_along({task.values + tile_at, shape.key_stride()}, seen, size, kSequenceKeys, unit,
               scratch.rows_along);
    add_rows(view, shape.window, changes, scratch.rows_along, size, {scratch.sums, dims});
    pack_along({task.value_changes + tile_at, shape.key_stride()}, seen, size, kSequenceKeys, 1.0F,
               scratch.rows_along);
    add_rows(view, shape.window, weights, scratch.rows_along, size, {scratch.sums, dims});
  }
  for (int q = 0; q < count; ++q) {
    const std::size_t row = query_at + at(q) * shape.query_stride();
    take_mean(scratch.sums + at(q) * dims, unit * along[q], task.out + row, size,
              task.out_changes + row);
  }
}

}  // namespace

void sequence_attention_tangent(const SequenceTangentTask& task) {
  const SequenceScratch scratch =
      divide_sequence_scratch(task.scratch.data(), at(task.shape.head_size));
  for (int block = task.first_query; block < task.last_query; block += kSequenceQueries) {
    tangent_block(task, block, least(kSequenceQueries, task.last_query - block), scratch);
  }
}

void sequence_attention(const SequenceAttentionTask& task) {
  const SequenceScratch scratch =
      divide_sequence_scratch(task.scratch.data(), at(task.shape.head_size));
  for (int block = task.first_query; block < task.last_query; block += kSequenceQueries) {
    attend_block(task, block, least(kSequenceQueries, task.last_query - block), scratch);
  }
}

void sequence_attention_gradient(const SequenceGradientTask& task) {
  const SequenceShape& shape = task.shape;
  const SequenceScratch scratch = divide_sequence_scratch(task.scratch.data(), at(shape.head_size));
  const int kv_head = task.first_head / (shape.heads / shape.kv_heads);
  const std::size_t key_at = at(kv_head) * at(shape.head_size);
  if (task.d_keys != nullptr) {
    for (int key = task.first_key; key < task.last_key; ++key) {
      const std::size_t row = at(key) * shape.key_stride() + key_at;
      std::memset(task.d_keys + row, 0, at(shape.head_size) * sizeof(float));
      std::memset(task.d_values + row, 0, at(shape.head_size) * sizeof(float));
    }
  }
  for (int head = task.first_head; head < task.last_head; ++head) {
    for (int query = task.first_query; query < task.last_query; query += kSequenceQueries) {
      const int count = least(kSequenceQueries, task.last_query - query);
      gradient_block(task, {head, query, count, key_at}, scratch);
    }
  }
}

}  // namespace hone::kernels::HONE_ISA_NAMESPACE

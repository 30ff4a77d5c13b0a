// The two products of attention on a tile of query rows and one page, and the softmax between.
// A part of attention.inl, after an isa header.
// SPDX-License-Identifier: Apache-2.0
//
// Every float operation on a row is the same, in the same order, whatever the tile's height and
// wherever the elements were converted: results do not depend on what else is in the tile.
#pragma once

#include "kernels/attention.h"
#include "kernels/attention_math.h"

namespace hone::kernels::HONE_ISA_NAMESPACE {
namespace {

inline constexpr int kTileRows = 6;  // 6 x 2 sums, 2 loads and a broadcast fit in 16 registers
inline constexpr float kMasked = -1e30F;

// One vector of elements, as f32 (exact for every kind of cache).
template <class Tag>
HWY_INLINE hn::Vec<Tag> load_elements(Tag d, const float* from) {
  return hn::LoadU(d, from);
}
template <class Tag>
HWY_INLINE hn::Vec<Tag> load_elements(Tag d, const hwy::float16_t* from) {
  const hn::Rebind<hwy::float16_t, Tag> half;
  return hn::PromoteTo(d, hn::LoadU(half, from));
}
template <class Tag>
HWY_INLINE hn::Vec<Tag> load_elements(Tag d, const std::int8_t* from) {
  const hn::Rebind<std::int8_t, Tag> byte;
  const hn::RebindToSigned<Tag> word;
  return hn::ConvertTo(d, hn::PromoteTo(word, hn::LoadU(byte, from)));
}

// One page of one kv head.
template <class Element>
struct PageBlock {
  const Element* keys;        // [head_size][32]
  const Element* values;      // [32][head_size]
  const float* key_scales;    // [32], or null
  const float* value_scales;  // [32], or null
};

// What the rows of a tile carry from page to page.
struct TileState {
  const float* queries;  // rows `query_stride` apart
  std::size_t query_stride;
  float* sums;     // [rows][kLanes]: partial sums of the weights, by lane
  float* maxima;   // [rows]: in units of log2; a vector may be read past the last row
  float* outputs;  // [rows][head_size]: weighted sums of values
};

// The tile's own scratch.
struct TileScratch {
  alignas(64) float scores[kTileRows][kPageTokens];  // then weights
  alignas(64) float rescale[kTileRows + kLanes];
  alignas(64) float maxima[kTileRows + kLanes];
};

// How scores become exponents of 2.
struct ScoreRule {
  float factor;  // scale * log2(e), or scale / soft_cap
  float cap;     // soft_cap * log2(e), or 0
};

// The tokens [begin, end) of a page that a row sees.
struct Seen {
  int begin;
  int end;
};

// scores[r][t] = sum_d queries[r][d] * keys[d][t], d in ascending order.
template <int kRows, class Element>
HWY_INLINE void score_tile(const TileState& state, const Element* keys, std::size_t head_size,
                           TileScratch& scratch) {
  const F32 f32;
  constexpr std::size_t kWidth = 2 * kLanes;
  for (std::size_t token = 0; token < kPageTokens; token += kWidth) {
    VecF32 sum[kRows][2];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) sum[r][0] = sum[r][1] = hn::Zero(f32);
    const float* query = state.queries;
    const std::size_t stride = state.query_stride;
    for (std::size_t d = 0; d < head_size; ++d) {
      const Element* key = keys + d * kPageTokens + token;
      const VecF32 key0 = load_elements(f32, key);
      const VecF32 key1 = load_elements(f32, key + kLanes);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const VecF32 q = hn::Set(f32, query[static_cast<std::size_t>(r) * stride + d]);
        sum[r][0] = hn::MulAdd(q, key0, sum[r][0]);
        sum[r][1] = hn::MulAdd(q, key1, sum[r][1]);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      hn::Store(sum[r][0], f32, scratch.scores[r] + token);
      hn::Store(sum[r][1], f32, scratch.scores[r] + token + kLanes);
    }
  }
}

HWY_INLINE VecF32 to_exponent(VecF32 score, const ScoreRule& rule) {
  const F32 f32;
  score = hn::Mul(score, hn::Set(f32, rule.factor));
  if (rule.cap != 0.0F) score = hn::Mul(tanh_of(score), hn::Set(f32, rule.cap));
  return score;
}

// Lanes that stand for tokens token .. token + kLanes - 1 and are seen.
HWY_INLINE hn::Mask<F32> seen_lanes(Seen seen, int token) {
  const I32 i32;
  const VecI32 index = hn::Iota(i32, token);
  const auto before = hn::Lt(index, hn::Set(i32, seen.begin));
  const auto inside = hn::Lt(index, hn::Set(i32, seen.end));
  return hn::RebindMask(F32(), hn::AndNot(before, inside));
}

// The online softmax (Milakov and Gimelshein 2018; Dao et al., FlashAttention, 2022): scores to
// weights relative to the maximum so far, and the factors by which older sums must shrink.
// `seen(r)` is looked at only if kMask: unseen tokens get weight 0, whatever their score.
template <bool kMask, class SeenOfRow>
HWY_INLINE void softmax_tile(int rows, const TileState& state, const ScoreRule& rule,
                             const float* key_scales, const float* value_scales,
                             SeenOfRow seen_of_row, TileScratch& scratch) {
  const F32 f32;
  constexpr int kStep = static_cast<int>(kLanes);
  for (int r = 0; r < rows; ++r) {
    float* scores = scratch.scores[r];
    VecF32 largest = hn::Set(f32, kMasked);
#pragma GCC unroll 4
    for (int t = 0; t < kPageTokens; t += kStep) {
      VecF32 score = hn::Load(f32, scores + t);
      if (key_scales != nullptr) score = hn::Mul(score, hn::LoadU(f32, key_scales + t));
      score = to_exponent(score, rule);
      if constexpr (kMask) {
        score = hn::IfThenElse(seen_lanes(seen_of_row(r), t), score, hn::Set(f32, kMasked));
      }
      hn::Store(score, f32, scores + t);
      largest = hn::Max(largest, score);
    }
    const float before = state.maxima[r];
    const float here = hn::GetLane(hn::MaxOfLanes(f32, largest));
    scratch.maxima[r] = here > before ? here : before;
  }
  for (int r = 0; r < rows; r += kStep) {
    const VecF32 before = hn::LoadU(f32, state.maxima + r);
    const VecF32 now = hn::LoadU(f32, scratch.maxima + r);
    hn::StoreU(exp2_or_zero(hn::Sub(before, now)), f32, scratch.rescale + r);
  }
  for (int r = 0; r < rows; ++r) {
    float* scores = scratch.scores[r];
    float* sums = state.sums + static_cast<std::size_t>(r) * kLanes;
    const VecF32 maximum = hn::Set(f32, scratch.maxima[r]);
    VecF32 sum = hn::Mul(hn::Load(f32, sums), hn::Set(f32, scratch.rescale[r]));
#pragma GCC unroll 4
    for (int t = 0; t < kPageTokens; t += kStep) {
      VecF32 weight = exp2_or_zero(hn::Sub(hn::Load(f32, scores + t), maximum));
      sum = hn::Add(sum, weight);
      // Rows past the last seen token are never multiplied, so their scales may be anything.
      if (value_scales != nullptr) weight = hn::Mul(weight, hn::LoadU(f32, value_scales + t));
      hn::Store(weight, f32, scores + t);
    }
    hn::Store(sum, f32, sums);
    state.maxima[r] = scratch.maxima[r];
  }
}

// outputs[r][c] = outputs[r][c] * rescale[r] + sum_t weights[r][t] * values[t][c] for a column
// block of kVectors vectors, t in ascending order.
template <int kRows, int kVectors, class Tag, class Element>
HWY_INLINE void value_columns(Tag f32, const Element* values, std::size_t head_size, Seen seen,
                              const TileScratch& scratch, int first_row, float* outputs) {
  constexpr std::size_t kWidth = hn::MaxLanes(Tag());
  hn::Vec<Tag> sum[kRows][kVectors];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    const auto rescale = hn::Set(f32, scratch.rescale[first_row + r]);
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      const float* from = outputs + static_cast<std::size_t>(r) * head_size + v * kWidth;
      sum[r][v] = hn::Mul(hn::LoadU(f32, from), rescale);
    }
  }
  const float* weights = scratch.scores[first_row];
  for (int t = seen.begin; t < seen.end; ++t) {
    const Element* row = values + static_cast<std::size_t>(t) * head_size;
    hn::Vec<Tag> value[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) value[v] = load_elements(f32, row + v * kWidth);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const auto weight = hn::Set(f32, weights[r * kPageTokens + t]);
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) sum[r][v] = hn::MulAdd(weight, value[v], sum[r][v]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      hn::StoreU(sum[r][v], f32, outputs + static_cast<std::size_t>(r) * head_size + v * kWidth);
    }
  }
}

template <int kRows, class Element>
HWY_INLINE void value_tile(const Element* values, std::size_t head_size, Seen seen,
                           const TileScratch& scratch, int first_row, float* outputs) {
  const F32 f32;
  // Few rows need more vectors to hide the latency of a sum; many have no registers for them.
  constexpr int kVectors = kLanes == 16 || kRows <= 3 ? 4 : 2;
  std::size_t column = 0;
  for (; column + kVectors * kLanes <= head_size; column += kVectors * kLanes) {
    value_columns<kRows, kVectors>(f32, values + column, head_size, seen, scratch, first_row,
                                   outputs + column);
  }
  if constexpr (kVectors > 2) {
    if (column + 2 * kLanes <= head_size) {
      value_columns<kRows, 2>(f32, values + column, head_size, seen, scratch, first_row,
                              outputs + column);
      column += 2 * kLanes;
    }
  }
  for (; column + kLanes <= head_size; column += kLanes) {
    value_columns<kRows, 1>(f32, values + column, head_size, seen, scratch, first_row,
                            outputs + column);
  }
  if constexpr (kLanes == 16) {
    if (column < head_size) {  // head_size is a multiple of 8
      const hn::CappedTag<float, 8> half;
      value_columns<kRows, 1>(half, values + column, head_size, seen, scratch, first_row,
                              outputs + column);
    }
  }
}

template <class Element>
HWY_NOINLINE void score_rows(int rows, const TileState& state, const Element* keys,
                             std::size_t head_size, TileScratch& scratch) {
  switch (rows) {
    case 1: return score_tile<1>(state, keys, head_size, scratch);
    case 2: return score_tile<2>(state, keys, head_size, scratch);
    case 3: return score_tile<3>(state, keys, head_size, scratch);
    case 4: return score_tile<4>(state, keys, head_size, scratch);
    case 5: return score_tile<5>(state, keys, head_size, scratch);
    default: return score_tile<6>(state, keys, head_size, scratch);
  }
}

template <class Element>
HWY_NOINLINE void value_rows(int rows, const Element* values, std::size_t head_size, Seen seen,
                             const TileScratch& scratch, int first_row, float* outputs) {
  switch (rows) {
    case 1: return value_tile<1>(values, head_size, seen, scratch, first_row, outputs);
    case 2: return value_tile<2>(values, head_size, seen, scratch, first_row, outputs);
    case 3: return value_tile<3>(values, head_size, seen, scratch, first_row, outputs);
    case 4: return value_tile<4>(values, head_size, seen, scratch, first_row, outputs);
    case 5: return value_tile<5>(values, head_size, seen, scratch, first_row, outputs);
    default: return value_tile<6>(values, head_size, seen, scratch, first_row, outputs);
  }
}

}  // namespace
}  // namespace hone::kernels::HONE_ISA_NAMESPACE

// The two products of attention on a tile of query rows and one page, and the softmax between.
// A part of attention.inl, after an isa header.
// SPDX-License-Identifier: Apache-2.0
//
// Every float operation on a row is the same, in the same order, whatever the tile's height and
// wherever the elements were converted: results do not depend on what else is in the tile.
#pragma once

#include <type_traits>

#include "kernels/attention.h"
#include "kernels/attention_math.h"

namespace hone::kernels::HONE_ISA_NAMESPACE {
namespace {

// Rows that share a load of keys: 6 x 2 sums, 2 loads and a broadcast fit in 16 registers, 12 x 2
// and so on in 32. Rows that share a load of values: 6 x 2 sums, with 32 registers 6 x 4.
inline constexpr int kScoreRows = kLanes == 16 ? 12 : 6;
inline constexpr int kValueRows = 6;
inline constexpr int kTileRows = 12;  // a tile's softmax hides the latencies of a row's
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
  const Element* keys;         // [head_size][32]
  const Element* values;       // [32][head_size]
  const float* key_scales;     // [32], or null
  const float* value_scales;   // [32], or null
  const Element* next_keys;    // the page to come, or again this one: fetched while this one
  const Element* next_values;  // is worked on, as no hardware follows a page table
};

// What the rows of a tile carry from page to page.
struct TileState {
  const float* queries;  // rows `query_stride` apart
  std::size_t query_stride;
  float* sums;     // [rows][kLanes]: partial sums of the weights, by lane
  float* maxima;   // [rows]: the largest exponent of 2 so far; a vector may be read past the last
  float* outputs;  // [rows][head_size]: weighted sums of values
};

// The tile's own scratch.
struct TileScratch {
  alignas(64) float scores[kTileRows][kPageTokens];  // then weights
  float rescale[kTileRows + kLanes];
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

template <int kCount>
using Rows = std::integral_constant<int, kCount>;

// Elements narrower than f32 come straight from the cache; f32, nearly always, from a page that was
// just converted.
template <class Element>
HWY_INLINE void prefetch(const Element* from) {
  if constexpr (sizeof(Element) < sizeof(float)) __builtin_prefetch(from, 0, 3);
}

// scores[r][t] = sum_d queries[r][d] * keys[d][t], d in ascending order.
template <int kRows, class Element>
HWY_INLINE void score_tile(const TileState& state, const PageBlock<Element>& page,
                           std::size_t head_size, int first_row, TileScratch& scratch) {
  const F32 f32;
  constexpr std::size_t kWidth = 2 * kLanes;
  for (std::size_t token = 0; token < kPageTokens; token += kWidth) {
    VecF32 sum[kRows][2];
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r) sum[r][0] = sum[r][1] = hn::Zero(f32);
    const std::size_t stride = state.query_stride;
    const float* query = state.queries + static_cast<std::size_t>(first_row) * stride;
    for (std::size_t d = 0; d < head_size; ++d) {
      const Element* key = page.keys + d * kPageTokens + token;
      prefetch(page.next_keys + d * kPageTokens + token);
      const VecF32 key0 = load_elements(f32, key);
      const VecF32 key1 = load_elements(f32, key + kLanes);
#pragma GCC unroll 12
      for (int r = 0; r < kRows; ++r) {
        const VecF32 q = hn::Set(f32, query[static_cast<std::size_t>(r) * stride + d]);
        sum[r][0] = hn::MulAdd(q, key0, sum[r][0]);
        sum[r][1] = hn::MulAdd(q, key1, sum[r][1]);
      }
    }
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r) {
      hn::Store(sum[r][0], f32, scratch.scores[first_row + r] + token);
      hn::Store(sum[r][1], f32, scratch.scores[first_row + r] + token + kLanes);
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
// kPlain: no scales and no cap, so that scaling is a part of the exponent's one multiply-add.
// `seen_of_row(r)` is asked only if kMask: unseen tokens get weight 0, whatever their score.
template <bool kMask, bool kPlain, class SeenOfRow>
HWY_INLINE void softmax_tile(int rows, const TileState& state, const ScoreRule& rule,
                             const float* key_scales, const float* value_scales,
                             SeenOfRow seen_of_row, TileScratch& scratch) {
  const F32 f32;
  constexpr int kStep = static_cast<int>(kLanes);
  const float factor = kPlain ? rule.factor : 1.0F;
  alignas(64) float before[kTileRows + kLanes];
  for (int r = 0; r < rows; ++r) {
    float* scores = scratch.scores[r];
    VecF32 largest = hn::Set(f32, kMasked);
#pragma GCC unroll 4
    for (int t = 0; t < kPageTokens; t += kStep) {
      VecF32 score = hn::Load(f32, scores + t);
      if constexpr (!kPlain) {
        if (key_scales != nullptr) score = hn::Mul(score, hn::LoadU(f32, key_scales + t));
        score = to_exponent(score, rule);
      }
      if constexpr (kMask) {
        score = hn::IfThenElse(seen_lanes(seen_of_row(r), t), score, hn::Set(f32, kMasked));
      }
      if constexpr (kMask || !kPlain) hn::Store(score, f32, scores + t);
      largest = hn::Max(largest, score);
    }
    before[r] = state.maxima[r];
    const float here = hn::GetLane(hn::MaxOfLanes(f32, largest)) * factor;
    state.maxima[r] = here > before[r] ? here : before[r];
  }
  // One vector for all rows; but a load that follows the stores it needs too closely waits for
  // them, which few rows do not make up for. The bits are the same.
  if (rows > 4) {
    for (int r = 0; r < rows; r += kStep) {
      const VecF32 change = hn::Sub(hn::LoadU(f32, before + r), hn::LoadU(f32, state.maxima + r));
      hn::StoreU(exp2_or_zero(change), f32, scratch.rescale + r);
    }
  } else {
    for (int r = 0; r < rows; ++r) {
      const VecF32 change = hn::Sub(hn::Set(f32, before[r]), hn::Set(f32, state.maxima[r]));
      scratch.rescale[r] = hn::GetLane(exp2_or_zero(change));
    }
  }
  for (int r = 0; r < rows; ++r) {
    float* scores = scratch.scores[r];
    float* sums = state.sums + static_cast<std::size_t>(r) * kLanes;
    const VecF32 maximum = hn::Set(f32, state.maxima[r]);
    VecF32 sum = hn::Mul(hn::Load(f32, sums), hn::Set(f32, scratch.rescale[r]));
#pragma GCC unroll 4
    for (int t = 0; t < kPageTokens; t += kStep) {
      const VecF32 score = hn::Load(f32, scores + t);
      VecF32 weight = exp2_or_zero(kPlain ? hn::MulSub(score, hn::Set(f32, factor), maximum)
                                          : hn::Sub(score, maximum));
      sum = hn::Add(sum, weight);
      // Values of unseen tokens are never multiplied, so their scales may be anything.
      if constexpr (!kPlain) {
        if (value_scales != nullptr) weight = hn::Mul(weight, hn::LoadU(f32, value_scales + t));
      }
      hn::Store(weight, f32, scores + t);
    }
    hn::Store(sum, f32, sums);
  }
}

// outputs[r][c] = outputs[r][c] * rescale[r] + sum_t weights[r][t] * values[t][c] for a column
// block of kVectors vectors, t in ascending order.
template <int kRows, int kVectors, class Tag, class Element>
HWY_INLINE void value_columns(Tag f32, const PageBlock<Element>& page, std::size_t column,
                              std::size_t head_size, Seen seen, const TileScratch& scratch,
                              int first_row, float* outputs) {
  constexpr std::size_t kWidth = hn::MaxLanes(Tag());
  hn::Vec<Tag> sum[kRows][kVectors];
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r) {
    const auto rescale = hn::Set(f32, scratch.rescale[first_row + r]);
#pragma GCC unroll 12
    for (int v = 0; v < kVectors; ++v) {
      const float* from = outputs + static_cast<std::size_t>(r) * head_size + column + v * kWidth;
      sum[r][v] = hn::Mul(hn::LoadU(f32, from), rescale);
    }
  }
  const float* weights = scratch.scores[first_row];
  for (int t = seen.begin; t < seen.end; ++t) {
    const std::size_t at = static_cast<std::size_t>(t) * head_size + column;
    const Element* row = page.values + at;
    for (std::size_t c = 0; c < kVectors * kWidth; c += 64 / sizeof(Element)) {
      prefetch(page.next_values + at + c);
    }
    hn::Vec<Tag> value[kVectors];
#pragma GCC unroll 12
    for (int v = 0; v < kVectors; ++v) value[v] = load_elements(f32, row + v * kWidth);
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r) {
      const auto weight = hn::Set(f32, weights[r * kPageTokens + t]);
#pragma GCC unroll 12
      for (int v = 0; v < kVectors; ++v) sum[r][v] = hn::MulAdd(weight, value[v], sum[r][v]);
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 12
    for (int v = 0; v < kVectors; ++v) {
      hn::StoreU(sum[r][v], f32,
                 outputs + static_cast<std::size_t>(r) * head_size + column + v * kWidth);
    }
  }
}

template <int kRows, class Element>
HWY_INLINE void value_tile(const PageBlock<Element>& page, std::size_t head_size, Seen seen,
                           const TileScratch& scratch, int first_row, float* outputs) {
  const F32 f32;
  // Few rows need more vectors to hide the latency of a sum; many have no registers for them.
  constexpr int kVectors = kLanes == 16 || kRows <= 3 ? 4 : 2;
  std::size_t column = 0;
  for (; column + kVectors * kLanes <= head_size; column += kVectors * kLanes) {
    value_columns<kRows, kVectors>(f32, page, column, head_size, seen, scratch, first_row, outputs);
  }
  if constexpr (kVectors > 2) {
    if (column + 2 * kLanes <= head_size) {
      value_columns<kRows, 2>(f32, page, column, head_size, seen, scratch, first_row, outputs);
      column += 2 * kLanes;
    }
  }
  for (; column + kLanes <= head_size; column += kLanes) {
    value_columns<kRows, 1>(f32, page, column, head_size, seen, scratch, first_row, outputs);
  }
  if constexpr (kLanes == 16) {
    if (column < head_size) {  // head_size is a multiple of 8
      const hn::CappedTag<float, 8> half;
      value_columns<kRows, 1>(half, page, column, head_size, seen, scratch, first_row, outputs);
    }
  }
}

// At most kScoreRows rows, of elements narrower than f32 at most kValueRows.
template <class Element>
HWY_NOINLINE void score_rows(int rows, const TileState& state, const PageBlock<Element>& page,
                             std::size_t head_size, int first_row, TileScratch& scratch) {
  const auto tile = [&](auto count) HWY_ATTR {
    score_tile<decltype(count)::value>(state, page, head_size, first_row, scratch);
  };
  if constexpr (kScoreRows > kValueRows && sizeof(Element) == sizeof(float)) {
    switch (rows) {
      case 7: return tile(Rows<7>());
      case 8: return tile(Rows<8>());
      case 9: return tile(Rows<9>());
      case 10: return tile(Rows<10>());
      case 11: return tile(Rows<11>());
      case 12: return tile(Rows<12>());
      default: break;
    }
  }
  switch (rows) {
    case 1: return tile(Rows<1>());
    case 2: return tile(Rows<2>());
    case 3: return tile(Rows<3>());
    case 4: return tile(Rows<4>());
    case 5: return tile(Rows<5>());
    default: return tile(Rows<6>());
  }
}

// At most kValueRows rows.
template <class Element>
HWY_NOINLINE void value_rows(int rows, const PageBlock<Element>& page, std::size_t head_size,
                             Seen seen, const TileScratch& scratch, int first_row, float* outputs) {
  switch (rows) {
    case 1: return value_tile<1>(page, head_size, seen, scratch, first_row, outputs);
    case 2: return value_tile<2>(page, head_size, seen, scratch, first_row, outputs);
    case 3: return value_tile<3>(page, head_size, seen, scratch, first_row, outputs);
    case 4: return value_tile<4>(page, head_size, seen, scratch, first_row, outputs);
    case 5: return value_tile<5>(page, head_size, seen, scratch, first_row, outputs);
    default: return value_tile<6>(page, head_size, seen, scratch, first_row, outputs);
  }
}

// How many of `left` rows to take at a time if at most `most` fit: 8 rows are 4 + 4, not 6 + 2.
HWY_INLINE int even_share(int left, int most) {
  return left > 2 * most ? most : left > most ? (left + 1) / 2 : left;
}

}  // namespace
}  // namespace hone::kernels::HONE_ISA_NAMESPACE

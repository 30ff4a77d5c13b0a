// The products of sequence attention on tiles, and how its operands are packed for them. A part of
// sequence_attention.inl, after an isa header.
// SPDX-License-Identifier: Apache-2.0
//
// Scores stand transposed, queries across the lanes: then neither keys nor values need packing by
// column, a softmax needs no sums over lanes, and each of the two products of the forward and the
// five of the backward pass is one and the same loop, broadcast times vector.
#pragma once

#include <cstring>

#include "kernels/attention_math.h"
#include "kernels/isa/math.h"
#include "kernels/sequence_scratch.h"

namespace hone::kernels::HONE_ISA_NAMESPACE {
namespace {

// Queries (or dimensions) of a panel: two vectors.
inline constexpr int kPanel = 2 * static_cast<int>(kLanes);
// Rows of a tile: 6 x 2 sums, 2 loads and a broadcast fit in 16 registers; 8 x 2 in 32.
inline constexpr int kTileRows = kLanes == 16 ? 8 : 6;
static_assert(kSequenceKeys % kTileRows == 0 && kSequenceQueries % kPanel == 0);

// Rows and the distance between them.
struct Matrix {
  float* data;
  std::size_t stride;
};
struct ConstMatrix {
  const float* data;
  std::size_t stride;
};

// to[r][lanes] (+)= sum_k a(r, k) * b[k][lanes], k in ascending order; a(r, k) is a[r][k], or
// a[k][r] if kAcross.
template <class Tag, int kRows, int kVectors, bool kAcross, bool kAdd>
HWY_INLINE void product_tile(ConstMatrix a, ConstMatrix b, int depth, Matrix to) {
  const Tag tag;
  const std::size_t lanes = hn::MaxLanes(tag);
  hn::Vec<Tag> sum[kRows][kVectors];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      const float* at = to.data + static_cast<std::size_t>(r) * to.stride;
      sum[r][v] = kAdd ? hn::LoadU(tag, at + static_cast<std::size_t>(v) * lanes) : hn::Zero(tag);
    }
  }
  const float* left = a.data;
  const float* right = b.data;
  for (int k = 0; k < depth; ++k) {
    hn::Vec<Tag> factor[kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      factor[v] = hn::LoadU(tag, right + static_cast<std::size_t>(v) * lanes);
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const std::size_t row = static_cast<std::size_t>(r);
      const auto each = hn::Set(tag, kAcross ? left[row] : left[row * a.stride]);
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) sum[r][v] = hn::MulAdd(each, factor[v], sum[r][v]);
    }
    left += kAcross ? a.stride : 1;
    right += b.stride;
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      float* at = to.data + static_cast<std::size_t>(r) * to.stride;
      hn::StoreU(sum[r][v], tag, at + static_cast<std::size_t>(v) * lanes);
    }
  }
}

// The same for 1 to kTileRows rows.
template <class Tag, int kVectors, bool kAcross, bool kAdd>
HWY_NOINLINE void product_rows(int rows, ConstMatrix a, ConstMatrix b, int depth, Matrix to) {
  switch (rows) {
    case 1: return product_tile<Tag, 1, kVectors, kAcross, kAdd>(a, b, depth, to);
    case 2: return product_tile<Tag, 2, kVectors, kAcross, kAdd>(a, b, depth, to);
    case 3: return product_tile<Tag, 3, kVectors, kAcross, kAdd>(a, b, depth, to);
    case 4: return product_tile<Tag, 4, kVectors, kAcross, kAdd>(a, b, depth, to);
    case 5: return product_tile<Tag, 5, kVectors, kAcross, kAdd>(a, b, depth, to);
    case 6: return product_tile<Tag, 6, kVectors, kAcross, kAdd>(a, b, depth, to);
    default: break;
  }
  if constexpr (kTileRows == 8) {
    if (rows == 7) return product_tile<Tag, 7, kVectors, kAcross, kAdd>(a, b, depth, to);
    return product_tile<Tag, 8, kVectors, kAcross, kAdd>(a, b, depth, to);
  }
}

// Panels of dimensions against rows: for each panel of `width` dimensions calls
// call(multiply, panel), where multiply(rows, a, b, depth, to) adds a product as wide as the panel.
template <bool kAcross, class Call>
HWY_INLINE void each_panel(int width, Call call) {
  using Part = hn::CappedTag<float, 8>;  // what is left is a multiple of 8
  constexpr int kVector = static_cast<int>(kLanes);
  constexpr int kPart = kVector < 8 ? kVector : 8;
  for (int first = 0; first < width; first += kPanel) {
    const int left = width - first;
    const std::size_t panel = static_cast<std::size_t>(first / kPanel);
    if (left >= kPanel) {
      call(product_rows<F32, 2, kAcross, true>, panel, 0);
      continue;
    }
    int done = 0;
    for (; done + kVector <= left; done += kVector) {
      call(product_rows<F32, 1, kAcross, true>, panel, done);
    }
    for (; done < left; done += kPart) call(product_rows<Part, 1, kAcross, true>, panel, done);
  }
}

// rows x width floats to panels [width / kPanel][capacity][kPanel], times factor.
HWY_INLINE void pack_along(ConstMatrix from, int rows, int width, int capacity, float factor,
                           float* to) {
  using Part = hn::CappedTag<float, 8>;
  const Part part;
  const auto times = hn::Set(part, factor);
  constexpr std::size_t kStep = kLanes < 8 ? kLanes : 8;
  for (int r = 0; r < rows; ++r) {
    const float* row = from.data + static_cast<std::size_t>(r) * from.stride;
    for (std::size_t d = 0; d < static_cast<std::size_t>(width); d += kStep) {
      float* at =
          to +
          (d / kPanel * static_cast<std::size_t>(capacity) + static_cast<std::size_t>(r)) * kPanel +
          d % kPanel;
      hn::Store(hn::Mul(hn::LoadU(part, row + d), times), part, at);
    }
  }
}

// rows x width floats transposed to panels [rows / kPanel][width][kPanel], times factor; lanes
// without a row are 0.
HWY_INLINE void pack_across(ConstMatrix from, int rows, int width, float factor, float* to) {
  const int lanes = (rows + kPanel - 1) / kPanel * kPanel;
  const auto place = [&](int r, int d) {
    return to +
           (static_cast<std::size_t>(r / kPanel) * static_cast<std::size_t>(width) +
            static_cast<std::size_t>(d)) *
               kPanel +
           r % kPanel;
  };
  int r = 0;
#if !defined(HONE_ISA_SCALAR)
  using Four = hn::FixedTag<float, 4>;
  const Four four;
  const hn::FixedTag<double, 2> two;
  const auto times = hn::Set(four, factor);
  for (; r + 4 <= rows; r += 4) {
    const float* row = from.data + static_cast<std::size_t>(r) * from.stride;
    for (int d = 0; d < width; d += 4) {
      const auto a = hn::Mul(hn::LoadU(four, row + d), times);
      const auto b = hn::Mul(hn::LoadU(four, row + from.stride + d), times);
      const auto c = hn::Mul(hn::LoadU(four, row + 2 * from.stride + d), times);
      const auto e = hn::Mul(hn::LoadU(four, row + 3 * from.stride + d), times);
      const auto ab_low = hn::BitCast(two, hn::InterleaveLower(four, a, b));
      const auto ab_high = hn::BitCast(two, hn::InterleaveUpper(four, a, b));
      const auto ce_low = hn::BitCast(two, hn::InterleaveLower(four, c, e));
      const auto ce_high = hn::BitCast(two, hn::InterleaveUpper(four, c, e));
      const auto put = [&](auto value, int dim) {
        hn::Store(hn::BitCast(four, value), four, place(r, dim));
      };
      put(hn::InterleaveLower(two, ab_low, ce_low), d);
      put(hn::InterleaveUpper(two, ab_low, ce_low), d + 1);
      put(hn::InterleaveLower(two, ab_high, ce_high), d + 2);
      put(hn::InterleaveUpper(two, ab_high, ce_high), d + 3);
    }
  }
#endif
  for (; r < lanes; ++r) {
    const float* row = from.data + static_cast<std::size_t>(r) * from.stride;
    for (int d = 0; d < width; ++d) *place(r, d) = r < rows ? row[d] * factor : 0.0F;
  }
}

// How many of `left` rows to take at a time if at most kTileRows fit: 16 rows are 6 + 5 + 5.
HWY_INLINE int tile_share(int left) {
  const int tiles = (left + kTileRows - 1) / kTileRows;
  return (left + tiles - 1) / tiles;
}

HWY_INLINE int least(int a, int b) { return a < b ? a : b; }
HWY_INLINE int most(int a, int b) { return a > b ? a : b; }
HWY_INLINE int round_down(int value, int unit) { return value / unit * unit; }
HWY_INLINE int round_up(int value, int unit) { return (value + unit - 1) / unit * unit; }

// Some queries of one panel against the keys of one tile. Keys count from the tile's first.
struct PanelView {
  int first;     // the panel's first query, from the block's first
  int count;     // its queries
  int query;     // position of the first query, from the tile's first key; may be negative
  int key_low;   // keys that any of its queries sees, in whole tiles of rows
  int key_high;  // …
  bool whole;    // every query sees all keys of that range
};

HWY_INLINE PanelView panel_view(const SequenceShape& shape, int block_query, int block_count,
                                int panel, int tile_key, int tile_count) {
  PanelView view;
  view.first = panel * kPanel;
  view.count = least(kPanel, block_count - view.first);
  view.query = block_query + view.first - tile_key;
  const int last = view.query + view.count - 1;
  view.key_high = last < 0 ? 0 : least(round_up(last + 1, kTileRows), tile_count);
  view.key_low = 0;
  view.whole = view.query >= view.key_high - 1;
  if (shape.window > 0) {
    view.key_low =
        least(round_down(most(view.query - shape.window + 1, 0), kTileRows), view.key_high);
    view.whole = view.whole && view.key_low > last - shape.window;
  }
  return view;
}

// Positions of a vector of queries, from the tile's first key. Made once a panel: a vector of
// counting integers is a load of what was just stored.
HWY_INLINE VecI32 positions_from(int query) {
  const I32 i32;
  return hn::Add(hn::Iota(i32, 0), hn::Set(i32, query));
}

// Lanes of queries at these positions that see `key`.
HWY_INLINE hn::Mask<F32> sees(VecI32 position, int key, int window) {
  const I32 i32;
  auto mask = hn::Gt(position, hn::Set(i32, key - 1));
  if (window > 0) mask = hn::And(mask, hn::Gt(hn::Set(i32, key + window), position));
  return hn::RebindMask(F32(), mask);
}

// 2^x for x <= 127, and 2^-100 for all below -100: what is that small does not count, and a product
// with it is not subnormal. Relative error below 2e-7, exactly 1 at 0: the polynomial of
// exp2_or_zero. The exponent is added to the bits of the mantissa, which needs neither a conversion
// nor a product.
HWY_INLINE VecF32 exp2_at_least(VecF32 x) {
  const F32 d;
  const U32 du;
  x = at_least(x, -100.0F);
  const VecF32 magic = hn::Set(d, 0x1.8p23F);  // a float that large has no fraction
  const VecF32 shifted = hn::Add(x, magic);
  const VecF32 f = hn::Sub(x, hn::Sub(shifted, magic));
  VecF32 p = hn::Set(d, 0x1.5bba14p-10F);
  p = hn::MulAdd(p, f, hn::Set(d, 0x1.3cea88p-7F));
  p = hn::MulAdd(p, f, hn::Set(d, 0x1.c6b752p-5F));
  p = hn::MulAdd(p, f, hn::Set(d, 0x1.ebf9bcp-3F));
  p = hn::MulAdd(p, f, hn::Set(d, 0x1.62e42ap-1F));
  p = hn::MulAdd(p, f, hn::Set(d, 1.0F));
  const auto power = hn::ShiftLeft<23>(hn::BitCast(du, shifted));
  return hn::BitCast(d, hn::Add(hn::BitCast(du, p), power));
}

// Scores as exponents of 2: what queries are multiplied with, and with a cap what comes after.
struct Exponents {
  float factor;  // scale * log2(e), or scale / soft_cap
  float cap;     // soft_cap * log2(e), or 0
};
HWY_INLINE Exponents exponents_of(const SequenceShape& shape) {
  constexpr float kLog2E = 1.44269504F;
  if (shape.soft_cap > 0.0F) return {shape.scale / shape.soft_cap, shape.soft_cap * kLog2E};
  return {shape.scale * kLog2E, 0.0F};
}

}  // namespace
}  // namespace hone::kernels::HONE_ISA_NAMESPACE

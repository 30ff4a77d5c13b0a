// Searches for the scale (and minimum) of a group of weights: many candidates, each refitted by
// least squares. Shared by the encoders.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cassert>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "base/half.h"
#include "quant/blocks.h"

namespace hone::quant {

// Sums run in four lanes, a vector type of GCC and clang that compiles for any instruction set: the
// order of additions is the type's, so results are the same on every machine.
inline constexpr std::size_t kLanes = 4;
using Lanes = float __attribute__((vector_size(kLanes * sizeof(float))));

inline float sum(Lanes lanes) { return (lanes[0] + lanes[2]) + (lanes[1] + lanes[3]); }

template <std::size_t N>
using Group = std::span<const float, N>;

template <std::size_t N>
Lanes load(Group<N> values, std::size_t first) {
  Lanes lanes;
  std::memcpy(&lanes, values.data() + first, sizeof lanes);
  return lanes;
}

// Largest magnitude that enters a search: beyond every format's reach (65504 * 63 * 31), and its
// square times a block is far from overflow.
inline constexpr float kLargestWeight = 0x1p27f;
// Groups that stay below this are all zeros: a quarter of the smallest f16, so no scale can hold
// them.
inline constexpr float kSmallestWeight = 0x1p-26f;

// To the nearest whole number, ties to even, for |value| < 2^22; compiles to two additions.
template <typename T>
T nearest(T value) {
  return (value + 0x1.8p23f) - 0x1.8p23f;
}

inline float clamped(float value, float low, float high) {
  const float above = value > low ? value : low;
  return above < high ? above : high;
}

inline Lanes clamped(Lanes value, Lanes low, Lanes high) {
  const Lanes above = value > low ? value : low;
  return above < high ? above : high;
}

// Saturates, so that a stored scale is always finite.
inline f16 scale_to_f16(float scale) { return f32_to_f16(clamped(scale, -65504.0f, 65504.0f)); }
// What a decoder will see.
inline float as_stored(float scale) { return f16_to_f32(scale_to_f16(scale)); }

inline float inverse(float value) { return value == 0.0f ? 0.0f : 1.0f / value; }

// One block's weights made safe to search, with their factors (mean 1).
template <std::size_t N>
struct SearchBlock {
  alignas(64) std::array<float, N> weights;
  alignas(64) std::array<float, N> importance;

  SearchBlock(std::span<const float> in, std::span<const float> factors) {
    assert(in.size() == N && (factors.empty() || factors.size() == N));
    for (std::size_t i = 0; i < N; ++i) {
      // NaN, which no search survives, counts as zero.
      weights[i] = in[i] == in[i] ? clamped(in[i], -kLargestWeight, kLargestWeight) : 0.0f;
    }
    double total = 0.0;
    for (const float factor : factors) total += factor;
    const bool usable = total > 0.0 && std::isfinite(total);
    for (std::size_t i = 0; i < N; ++i) {
      importance[i] = usable ? static_cast<float>(factors[i] / total * N) : 1.0f;
    }
  }

  template <std::size_t M>
  Group<M> group(std::size_t j) const {
    return Group<M>(weights.data() + j * M, M);
  }
  template <std::size_t M>
  Group<M> factors(std::size_t j) const {
    return Group<M>(importance.data() + j * M, M);
  }
};

// Runs `encode_one(SearchBlock, Block&)` over all blocks.
template <typename Block, std::size_t N, typename EncodeOne>
void encode_blocks(std::span<const float> in, std::span<const float> importance,
                   std::span<std::byte> blocks, EncodeOne encode_one) {
  assert(in.size() % N == 0 && blocks.size() == in.size() / N * sizeof(Block));
  for (std::size_t b = 0; b < in.size() / N; ++b) {
    const SearchBlock<N> search(in.subspan(b * N, N),
                                importance.empty() ? importance : importance.subspan(b * N, N));
    Block block{};
    encode_one(search, block);
    std::memcpy(blocks.data() + b * sizeof(Block), &block, sizeof(Block));
  }
}

// Runs `decode_one(const Block&, float* of N)` over all blocks.
template <typename Block, std::size_t N, typename DecodeOne>
void decode_blocks(std::span<const std::byte> blocks, std::span<float> out, DecodeOne decode_one) {
  assert(out.size() % N == 0 && blocks.size() == out.size() / N * sizeof(Block));
  for (std::size_t b = 0; b < out.size() / N; ++b) {
    Block block;
    std::memcpy(&block, blocks.data() + b * sizeof(Block), sizeof(Block));
    decode_one(block, std::span<float, N>(out.data() + b * N, N));
  }
}

// ---- w = scale * q, q in [low, high] ----

template <std::size_t N>
float symmetric_error(Group<N> x, Group<N> factors, float scale, float low, float high) {
  const float reciprocal = inverse(scale);
  const Lanes high4 = Lanes{} + high;
  const Lanes low4 = Lanes{} + low;
  Lanes error{};
  for (std::size_t i = 0; i < N; i += kLanes) {
    const Lanes q = nearest(clamped(load(x, i) * reciprocal, low4, high4));
    const Lanes difference = load(x, i) - scale * q;
    error += load(factors, i) * difference * difference;
  }
  return sum(error);
}

struct SymmetricSums {
  float xq;  // sum of factor * x * q
  float qq;  // sum of factor * q * q
};

template <std::size_t N>
SymmetricSums symmetric_sums(Group<N> x, Group<N> factors, float reciprocal, float low,
                             float high) {
  const Lanes low4 = Lanes{} + low;
  const Lanes high4 = Lanes{} + high;
  Lanes xq{};
  Lanes qq{};
  for (std::size_t i = 0; i < N; i += kLanes) {
    const Lanes q = nearest(clamped(load(x, i) * reciprocal, low4, high4));
    const Lanes weighted = load(factors, i) * q;
    xq += weighted * load(x, i);
    qq += weighted * q;
  }
  return {sum(xq), sum(qq)};
}

template <std::size_t N>
float signed_largest(Group<N> x) {
  float largest = 0.0f;
  for (const float value : x) {
    if (std::fabs(value) > std::fabs(largest)) largest = value;
  }
  return largest;
}

// The scale of least squared error, possibly negative: the weight of largest magnitude is mapped to
// each of `steps` places around `low` (the longer side of the range) and around `high`.
template <std::size_t N>
float fit_symmetric(Group<N> x, Group<N> factors, float low, float high, int steps, float step) {
  const float largest = signed_largest(x);
  if (std::fabs(largest) < kSmallestWeight) return 0.0f;
  float best = largest / low;
  float best_gain = 0.0f;  // the part of sum(factor * x^2) that the fit explains
  const auto consider = [&](float reciprocal) {
    const SymmetricSums sums = symmetric_sums(x, factors, reciprocal, low, high);
    if (sums.qq <= 0.0f || sums.xq * sums.xq <= best_gain * sums.qq) return;
    best_gain = sums.xq * sums.xq / sums.qq;
    best = sums.xq / sums.qq;
  };
  for (int i = 0; i < steps; ++i) {
    const float shift = step * static_cast<float>(i - steps / 2);
    consider((low + shift) / largest);
    consider((high + shift) / largest);
  }
  for (int i = 0; i < 2 && best != 0.0f; ++i) consider(1.0f / best);
  return best;
}

// ---- w = scale * q + minimum, q in [0, high] ----

struct Affine {
  float scale = 0.0f;
  float minimum = 0.0f;
};

template <std::size_t N>
float affine_error(Group<N> x, Group<N> factors, Affine fit, float high) {
  const float reciprocal = inverse(fit.scale);
  const Lanes high4 = Lanes{} + high;
  Lanes error{};
  for (std::size_t i = 0; i < N; i += kLanes) {
    const Lanes shifted = load(x, i) - fit.minimum;
    const Lanes q = nearest(clamped(shifted * reciprocal, Lanes{}, high4));
    const Lanes difference = shifted - fit.scale * q;
    error += load(factors, i) * difference * difference;
  }
  return sum(error);
}

// Sums over the group for least squares in (scale, minimum) with q fixed.
struct AffineSums {
  float q = 0.0f;
  float qq = 0.0f;
  float xq = 0.0f;
};

template <std::size_t N>
AffineSums affine_sums(Group<N> x, Group<N> factors, float reciprocal, float minimum, float high) {
  const Lanes high4 = Lanes{} + high;
  Lanes sum_q{};
  Lanes sum_qq{};
  Lanes sum_xq{};
  for (std::size_t i = 0; i < N; i += kLanes) {
    const Lanes q = nearest(clamped((load(x, i) - minimum) * reciprocal, Lanes{}, high4));
    const Lanes weighted = load(factors, i) * q;
    sum_q += weighted;
    sum_qq += weighted * q;
    sum_xq += weighted * load(x, i);
  }
  return {sum(sum_q), sum(sum_qq), sum(sum_xq)};
}

struct AffineRange {
  int steps;                  // candidates for each end
  float step;                 // in units of q
  bool minimum_at_most_zero;  // K-quants store minus the minimum, unsigned
};

// Least squares over a grid of ends: the smallest weight is mapped to each of `steps` places around
// 0 (where it lies below, it is clipped), the largest to places around `high`.
template <std::size_t N>
Affine fit_affine(Group<N> x, Group<N> factors, float high, AffineRange range) {
  float sum_w = 0.0f;
  float sum_x = 0.0f;
  float lowest = x[0];
  float largest = x[0];
  for (std::size_t i = 0; i < N; ++i) {
    lowest = x[i] < lowest ? x[i] : lowest;
    largest = x[i] > largest ? x[i] : largest;
    sum_w += factors[i];
    sum_x += factors[i] * x[i];
  }
  if (range.minimum_at_most_zero && lowest > 0.0f) lowest = 0.0f;
  if (largest - lowest < kSmallestWeight) return {0.0f, lowest};

  Affine best{(largest - lowest) / high, lowest};
  float best_gain = -1.0f;
  const auto consider = [&](float reciprocal, float minimum) {
    const AffineSums sums = affine_sums(x, factors, reciprocal, minimum, high);
    const float determinant = sum_w * sums.qq - sums.q * sums.q;
    Affine fit;
    if (determinant > 0.0f) {
      fit.scale = (sum_w * sums.xq - sum_x * sums.q) / determinant;
      fit.minimum = (sums.qq * sum_x - sums.q * sums.xq) / determinant;
    }
    if (determinant <= 0.0f || (range.minimum_at_most_zero && fit.minimum > 0.0f)) {
      if (sums.qq <= 0.0f) return;
      fit = {sums.xq / sums.qq, 0.0f};
    }
    if (!(fit.scale > 0.0f)) return;
    // sum(w x^2) minus the squared error, which is quadratic in the fit.
    const float gain = 2.0f * (fit.scale * sums.xq + fit.minimum * sum_x) -
                       (fit.scale * fit.scale * sums.qq + 2.0f * fit.scale * fit.minimum * sums.q +
                        fit.minimum * fit.minimum * sum_w);
    if (gain <= best_gain) return;
    best_gain = gain;
    best = fit;
  };
  const float width = largest - lowest;
  for (int i = 0; i < range.steps; ++i) {
    for (int j = 0; j < range.steps; ++j) {
      const float below = range.step * static_cast<float>(i - 2);
      const float above = range.step * static_cast<float>(j - 2);
      const float reciprocal = (high + below + above) / width;
      consider(reciprocal, lowest + below / reciprocal);
    }
  }
  // Around the best, each end by a fraction of a step: other roundings, hence other minima.
  for (const float shift : {0.12f, 0.06f}) {
    const Affine centre = best;
    for (int i = 0; i < 9; ++i) {
      const float below = shift * static_cast<float>(i % 3 - 1);
      const float above = shift * static_cast<float>(i / 3 - 1);
      const float reciprocal = (1.0f + (below + above) / high) / centre.scale;
      consider(reciprocal, centre.minimum + below * centre.scale);
    }
  }
  return best;
}

}  // namespace hone::quant

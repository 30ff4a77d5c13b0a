// q2_k, q4_k, q5_k: 256 weights in groups, w = (scale * s) * q - (minimum * m), s and m per group.
// SPDX-License-Identifier: Apache-2.0
#include "quant/members.h"
#include "quant/search.h"

namespace hone::quant {
namespace {

constexpr std::size_t kBlock = 256;

struct AffineFormat {
  float high;        // of q
  float scale_high;  // of s and m
  AffineRange range;
};

template <std::size_t M>
struct AffineChoice {
  float scale = 0.0f;    // as stored
  float minimum = 0.0f;  // as stored, what m counts
  std::array<float, kBlock / M> scales{};
  std::array<float, kBlock / M> minimums{};
  float error = 0.0f;

  Affine fit(std::size_t j) const { return {scale * scales[j], -(minimum * minimums[j])}; }
};

template <std::size_t M>
using Wished = std::array<Affine, kBlock / M>;

// Rounds each group's wished pair to multiples of the block's, trying the eight neighbours too.
template <std::size_t M>
AffineChoice<M> choose_scales(const SearchBlock<kBlock>& block, const AffineFormat& format,
                              const Wished<M>& wished, float scale, float minimum) {
  AffineChoice<M> choice;
  choice.scale = scale;
  choice.minimum = minimum;
  const auto whole = [&](float value, float unit) {
    return nearest(clamped(value * inverse(unit), 0.0f, format.scale_high));
  };
  for (std::size_t j = 0; j < kBlock / M; ++j) {
    const float middle_s = whole(wished[j].scale, scale);
    const float middle_m = whole(-wished[j].minimum, minimum);
    float best_error = -1.0f;
    for (int k = 0; k < 9; ++k) {
      const float s = middle_s + static_cast<float>(k % 3 - 1);
      const float m = middle_m + static_cast<float>(k / 3 - 1);
      if (s < 0.0f || s > format.scale_high || m < 0.0f || m > format.scale_high) continue;
      const float error = affine_error(block.group<M>(j), block.factors<M>(j),
                                       {scale * s, -(minimum * m)}, format.high);
      if (best_error >= 0.0f && error >= best_error) continue;
      best_error = error;
      choice.scales[j] = s;
      choice.minimums[j] = m;
    }
    choice.error += best_error;
  }
  return choice;
}

// The block's scale and minimum by least squares, all whole numbers kept.
template <std::size_t M>
Affine refit(const SearchBlock<kBlock>& block, const AffineFormat& format,
             const AffineChoice<M>& choice) {
  // With a = s q and b = -m: minimize sum(w (x - scale a - minimum b)^2).
  double aa = 0.0, ab = 0.0, bb = 0.0, xa = 0.0, xb = 0.0;
  for (std::size_t j = 0; j < kBlock / M; ++j) {
    const Affine fit = choice.fit(j);
    const auto x = block.group<M>(j);
    const auto factors = block.factors<M>(j);
    const AffineSums sums = affine_sums(x, factors, inverse(fit.scale), fit.minimum, format.high);
    double sum_w = 0.0;
    double sum_x = 0.0;
    for (std::size_t i = 0; i < M; ++i) {
      sum_w += factors[i];
      sum_x += factors[i] * x[i];
    }
    const double s = choice.scales[j];
    const double m = choice.minimums[j];
    aa += s * s * sums.qq;
    ab -= s * m * sums.q;
    bb += m * m * sum_w;
    xa += s * sums.xq;
    xb -= m * sum_x;
  }
  const double determinant = aa * bb - ab * ab;
  if (determinant <= 1e-9 * aa * bb) {  // no minimum in use, or nothing but minimums
    return {aa > 0.0 ? as_stored(static_cast<float>(xa / aa)) : choice.scale, choice.minimum};
  }
  return {as_stored(static_cast<float>((bb * xa - ab * xb) / determinant)),
          as_stored(static_cast<float>((aa * xb - ab * xa) / determinant))};
}

template <std::size_t M>
AffineChoice<M> search_block(const SearchBlock<kBlock>& block, const AffineFormat& format) {
  Wished<M> wished;
  float largest_scale = 0.0f;
  float largest_minimum = 0.0f;
  for (std::size_t j = 0; j < kBlock / M; ++j) {
    wished[j] = fit_affine(block.group<M>(j), block.factors<M>(j), format.high, format.range);
    largest_scale = std::fmax(largest_scale, wished[j].scale);
    largest_minimum = std::fmax(largest_minimum, -wished[j].minimum);
  }
  AffineChoice<M> best;
  best.error = -1.0f;
  // The largest group exactly at the top, or clipped a little so that the others get finer steps.
  for (const float shift : {0.0f, 0.5f}) {
    const float end = format.scale_high + shift;
    AffineChoice<M> here = choose_scales<M>(block, format, wished, as_stored(largest_scale / end),
                                            as_stored(largest_minimum / end));
    for (int i = 0; i < 3; ++i) {
      if (best.error < 0.0f || here.error < best.error) best = here;
      const Affine fit = refit(block, format, here);
      if (i < 2) here = choose_scales<M>(block, format, wished, fit.scale, fit.minimum);
    }
  }
  return best;
}

template <std::size_t M>
std::array<int, kBlock> quantize_block(const SearchBlock<kBlock>& block, const AffineFormat& format,
                                       const AffineChoice<M>& choice) {
  std::array<int, kBlock> q;
  for (std::size_t j = 0; j < kBlock / M; ++j) {
    const Affine fit = choice.fit(j);
    const float reciprocal = inverse(fit.scale);
    for (std::size_t i = j * M; i < (j + 1) * M; ++i) {
      q[i] = static_cast<int>(
          nearest(clamped((block.weights[i] - fit.minimum) * reciprocal, 0.0f, format.high)));
    }
  }
  return q;
}

void pack_scale_pairs(const AffineChoice<32>& choice, std::uint8_t (&packed)[12]) {
  for (std::size_t j = 0; j < 4; ++j) {
    const int s = static_cast<int>(choice.scales[j]);
    const int m = static_cast<int>(choice.minimums[j]);
    const int later_s = static_cast<int>(choice.scales[j + 4]);
    const int later_m = static_cast<int>(choice.minimums[j + 4]);
    packed[j] = static_cast<std::uint8_t>(s | ((later_s >> 4) << 6));
    packed[j + 4] = static_cast<std::uint8_t>(m | ((later_m >> 4) << 6));
    packed[j + 8] = static_cast<std::uint8_t>((later_s & 15) | ((later_m & 15) << 4));
  }
}

constexpr AffineFormat kFormatQ2{3, 15, {6, 0.15f, true}};
constexpr AffineFormat kFormatQ4{15, 63, {6, 0.25f, true}};
constexpr AffineFormat kFormatQ5{31, 63, {6, 0.25f, true}};

}  // namespace

void decode_q2_k(std::span<const std::byte> blocks, std::span<float> out) {
  decode_blocks<BlockQ2_K, kBlock>(blocks, out, [](const BlockQ2_K& block, auto to) {
    const float scale = f16_to_f32(block.scale);
    const float minimum = f16_to_f32(block.minimum);
    for (std::size_t j = 0; j < 16; ++j) {
      const float group_scale = scale * static_cast<float>(block.scales[j] & 15);
      const float group_minimum = minimum * static_cast<float>(block.scales[j] >> 4);
      for (std::size_t i = j * 16; i < (j + 1) * 16; ++i) {
        const int q = (block.quants[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2)) & 3;
        to[i] = group_scale * static_cast<float>(q) - group_minimum;
      }
    }
  });
}

void encode_q2_k(std::span<const float> in, std::span<const float> importance,
                 std::span<std::byte> blocks) {
  encode_blocks<BlockQ2_K, kBlock>(in, importance, blocks, [](const auto& search, auto& block) {
    const AffineChoice<16> choice = search_block<16>(search, kFormatQ2);
    block.scale = scale_to_f16(choice.scale);
    block.minimum = scale_to_f16(choice.minimum);
    for (std::size_t j = 0; j < 16; ++j) {
      block.scales[j] = static_cast<std::uint8_t>(static_cast<int>(choice.scales[j]) |
                                                  (static_cast<int>(choice.minimums[j]) << 4));
    }
    const std::array<int, kBlock> quants = quantize_block(search, kFormatQ2, choice);
    for (std::size_t i = 0; i < kBlock; ++i) {
      block.quants[i / 128 * 32 + i % 32] |=
          static_cast<std::uint8_t>(quants[i] << (i % 128 / 32 * 2));
    }
  });
}

void decode_q4_k(std::span<const std::byte> blocks, std::span<float> out) {
  decode_blocks<BlockQ4_K, kBlock>(blocks, out, [](const BlockQ4_K& block, auto to) {
    const float scale = f16_to_f32(block.scale);
    const float minimum = f16_to_f32(block.minimum);
    for (std::size_t j = 0; j < 8; ++j) {
      const ScalePair pair = unpack_scale_pair(block.scales, static_cast<int>(j));
      const float group_scale = scale * static_cast<float>(pair.scale);
      const float group_minimum = minimum * static_cast<float>(pair.minimum);
      for (std::size_t k = 0; k < 32; ++k) {
        const int q = (block.quants[j / 2 * 32 + k] >> (j % 2 * 4)) & 15;
        to[j * 32 + k] = group_scale * static_cast<float>(q) - group_minimum;
      }
    }
  });
}

void encode_q4_k(std::span<const float> in, std::span<const float> importance,
                 std::span<std::byte> blocks) {
  encode_blocks<BlockQ4_K, kBlock>(in, importance, blocks, [](const auto& search, auto& block) {
    const AffineChoice<32> choice = search_block<32>(search, kFormatQ4);
    block.scale = scale_to_f16(choice.scale);
    block.minimum = scale_to_f16(choice.minimum);
    pack_scale_pairs(choice, block.scales);
    const std::array<int, kBlock> quants = quantize_block(search, kFormatQ4, choice);
    for (std::size_t i = 0; i < kBlock; ++i) {
      block.quants[i / 64 * 32 + i % 32] |=
          static_cast<std::uint8_t>(quants[i] << (i / 32 % 2 * 4));
    }
  });
}

void decode_q5_k(std::span<const std::byte> blocks, std::span<float> out) {
  decode_blocks<BlockQ5_K, kBlock>(blocks, out, [](const BlockQ5_K& block, auto to) {
    const float scale = f16_to_f32(block.scale);
    const float minimum = f16_to_f32(block.minimum);
    for (std::size_t j = 0; j < 8; ++j) {
      const ScalePair pair = unpack_scale_pair(block.scales, static_cast<int>(j));
      const float group_scale = scale * static_cast<float>(pair.scale);
      const float group_minimum = minimum * static_cast<float>(pair.minimum);
      for (std::size_t k = 0; k < 32; ++k) {
        const int low = (block.quants[j / 2 * 32 + k] >> (j % 2 * 4)) & 15;
        const int high = (block.high[k] >> j) & 1;
        to[j * 32 + k] = group_scale * static_cast<float>(low | (high << 4)) - group_minimum;
      }
    }
  });
}

void encode_q5_k(std::span<const float> in, std::span<const float> importance,
                 std::span<std::byte> blocks) {
  encode_blocks<BlockQ5_K, kBlock>(in, importance, blocks, [](const auto& search, auto& block) {
    const AffineChoice<32> choice = search_block<32>(search, kFormatQ5);
    block.scale = scale_to_f16(choice.scale);
    block.minimum = scale_to_f16(choice.minimum);
    pack_scale_pairs(choice, block.scales);
    const std::array<int, kBlock> quants = quantize_block(search, kFormatQ5, choice);
    for (std::size_t i = 0; i < kBlock; ++i) {
      block.quants[i / 64 * 32 + i % 32] |=
          static_cast<std::uint8_t>((quants[i] & 15) << (i / 32 % 2 * 4));
      block.high[i % 32] |= static_cast<std::uint8_t>((quants[i] >> 4) << (i / 32));
    }
  });
}

}  // namespace hone::quant

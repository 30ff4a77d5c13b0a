// q3_k and q6_k: 256 weights in groups of 16, w = (scale * group scale) * q, no minimum.
// SPDX-License-Identifier: Apache-2.0
#include "quant/members.h"
#include "quant/search.h"

namespace hone::quant {
namespace {

constexpr std::size_t kBlock = 256;
constexpr std::size_t kGroup = 16;
constexpr std::size_t kGroups = kBlock / kGroup;

struct SymmetricFormat {
  float low;        // of q
  float high;       // of q
  float scale_low;  // of a group's whole-number scale
  float scale_high;
  int steps;  // candidates for the scale of a group, on each side
  float step;
};

struct SymmetricChoice {
  float scale = 0.0f;                   // as stored
  std::array<float, kGroups> scales{};  // whole numbers in [scale_low, scale_high]
  float error = 0.0f;
};

// Rounds each group's wished scale to a multiple of `scale`, trying the neighbours too.
SymmetricChoice choose_scales(const SearchBlock<kBlock>& block, const SymmetricFormat& format,
                              const std::array<float, kGroups>& wished, float scale) {
  SymmetricChoice choice;
  choice.scale = scale;
  const float reciprocal = inverse(scale);
  for (std::size_t j = 0; j < kGroups; ++j) {
    const float middle =
        nearest(clamped(wished[j] * reciprocal, format.scale_low, format.scale_high));
    float best_error = -1.0f;
    for (int step = -1; step <= 1; ++step) {
      const float s = middle + static_cast<float>(step);
      if (s < format.scale_low || s > format.scale_high) continue;
      const float error = symmetric_error(block.group<kGroup>(j), block.factors<kGroup>(j),
                                          scale * s, format.low, format.high);
      if (best_error >= 0.0f && error >= best_error) continue;
      best_error = error;
      choice.scales[j] = s;
    }
    choice.error += best_error;
  }
  return choice;
}

// The block's scale by least squares, all whole numbers kept.
float refit_scale(const SearchBlock<kBlock>& block, const SymmetricFormat& format,
                  const SymmetricChoice& choice) {
  double xq = 0.0;
  double qq = 0.0;
  for (std::size_t j = 0; j < kGroups; ++j) {
    const double s = choice.scales[j];
    const SymmetricSums sums =
        symmetric_sums(block.group<kGroup>(j), block.factors<kGroup>(j),
                       inverse(choice.scale * choice.scales[j]), format.low, format.high);
    xq += s * sums.xq;
    qq += s * s * sums.qq;
  }
  return qq > 0.0 ? as_stored(static_cast<float>(xq / qq)) : choice.scale;
}

SymmetricChoice search_block(const SearchBlock<kBlock>& block, const SymmetricFormat& format) {
  std::array<float, kGroups> wished;
  for (std::size_t j = 0; j < kGroups; ++j) {
    wished[j] = fit_symmetric(block.group<kGroup>(j), block.factors<kGroup>(j), format.low,
                              format.high, format.steps, format.step);
  }
  const float largest = signed_largest(Group<kGroups>(wished));
  SymmetricChoice best =
      choose_scales(block, format, wished, as_stored(largest / format.scale_low));
  // The largest group scale at the long end, at the short end, and a little beyond either.
  for (const float shift : {0.0f, 0.5f}) {
    for (const float end : {format.scale_low - shift, format.scale_high + shift}) {
      SymmetricChoice here = choose_scales(block, format, wished, as_stored(largest / end));
      for (int i = 0; i < 2; ++i) {
        if (here.error < best.error) best = here;
        here = choose_scales(block, format, wished, refit_scale(block, format, here));
      }
      if (here.error < best.error) best = here;
    }
  }
  return best;
}

std::array<int, kBlock> quantize_block(const SearchBlock<kBlock>& block,
                                       const SymmetricFormat& format,
                                       const SymmetricChoice& choice) {
  std::array<int, kBlock> q;
  for (std::size_t i = 0; i < kBlock; ++i) {
    const float reciprocal = inverse(choice.scale * choice.scales[i / kGroup]);
    q[i] =
        static_cast<int>(nearest(clamped(block.weights[i] * reciprocal, format.low, format.high)));
  }
  return q;
}

constexpr SymmetricFormat kFormatQ3{-4, 3, -32, 31, 17, 0.125f};
constexpr SymmetricFormat kFormatQ6{-32, 31, -128, 127, 13, 0.25f};

int unpack_q3_scale(const BlockQ3_K& block, std::size_t j) {
  const int low = j < 8 ? block.scales[j] & 15 : block.scales[j - 8] >> 4;
  const int high = (block.scales[8 + j % 4] >> (2 * (j / 4))) & 3;
  return (low | (high << 4)) - 32;
}

}  // namespace

void decode_q3_k(std::span<const std::byte> blocks, std::span<float> out) {
  decode_blocks<BlockQ3_K, kBlock>(blocks, out, [](const BlockQ3_K& block, auto to) {
    const float scale = f16_to_f32(block.scale);
    for (std::size_t j = 0; j < kGroups; ++j) {
      const float group_scale = scale * static_cast<float>(unpack_q3_scale(block, j));
      for (std::size_t k = 0; k < kGroup; ++k) {
        const std::size_t i = j * kGroup + k;
        const int low = (block.quants[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2)) & 3;
        const int high = (block.mask[i % 32] >> (i / 32)) & 1;
        to[i] = group_scale * static_cast<float>(low - (high != 0 ? 0 : 4));
      }
    }
  });
}

void encode_q3_k(std::span<const float> in, std::span<const float> importance,
                 std::span<std::byte> blocks) {
  encode_blocks<BlockQ3_K, kBlock>(in, importance, blocks, [](const auto& search, auto& block) {
    const SymmetricChoice choice = search_block(search, kFormatQ3);
    block.scale = scale_to_f16(choice.scale);
    for (std::size_t j = 0; j < kGroups; ++j) {
      const int s = static_cast<int>(choice.scales[j]) + 32;
      block.scales[j % 8] |= static_cast<std::uint8_t>(j < 8 ? s & 15 : (s & 15) << 4);
      block.scales[8 + j % 4] |= static_cast<std::uint8_t>((s >> 4) << (2 * (j / 4)));
    }
    const std::array<int, kBlock> quants = quantize_block(search, kFormatQ3, choice);
    for (std::size_t i = 0; i < kBlock; ++i) {
      const int q = quants[i] + 4;
      block.quants[i / 128 * 32 + i % 32] |=
          static_cast<std::uint8_t>((q & 3) << (i % 128 / 32 * 2));
      block.mask[i % 32] |= static_cast<std::uint8_t>((q >> 2) << (i / 32));
    }
  });
}

void decode_q6_k(std::span<const std::byte> blocks, std::span<float> out) {
  decode_blocks<BlockQ6_K, kBlock>(blocks, out, [](const BlockQ6_K& block, auto to) {
    const float scale = f16_to_f32(block.scale);
    for (std::size_t j = 0; j < kGroups; ++j) {
      const float group_scale = scale * static_cast<float>(block.scales[j]);
      for (std::size_t k = 0; k < kGroup; ++k) {
        const std::size_t i = j * kGroup + k;
        const int low = (block.low[i / 128 * 64 + i % 64] >> (i % 128 / 64 * 4)) & 15;
        const int high = (block.high[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2)) & 3;
        to[i] = group_scale * static_cast<float>((low | (high << 4)) - 32);
      }
    }
  });
}

void encode_q6_k(std::span<const float> in, std::span<const float> importance,
                 std::span<std::byte> blocks) {
  encode_blocks<BlockQ6_K, kBlock>(in, importance, blocks, [](const auto& search, auto& block) {
    const SymmetricChoice choice = search_block(search, kFormatQ6);
    block.scale = scale_to_f16(choice.scale);
    for (std::size_t j = 0; j < kGroups; ++j) {
      block.scales[j] = static_cast<std::int8_t>(choice.scales[j]);
    }
    const std::array<int, kBlock> quants = quantize_block(search, kFormatQ6, choice);
    for (std::size_t i = 0; i < kBlock; ++i) {
      const int q = quants[i] + 32;
      block.low[i / 128 * 64 + i % 64] |= static_cast<std::uint8_t>((q & 15) << (i % 128 / 64 * 4));
      block.high[i / 128 * 32 + i % 32] |=
          static_cast<std::uint8_t>((q >> 4) << (i % 128 / 32 * 2));
    }
  });
}

}  // namespace hone::quant

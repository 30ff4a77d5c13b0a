// iq4_nl: blocks of 32, each weight one of 16 fixed values (denser near zero) times an f16 scale.
// SPDX-License-Identifier: Apache-2.0
#include "quant/members.h"
#include "quant/search.h"

namespace hone::quant {
namespace {

constexpr std::size_t kBlock = 32;

// Midpoints between neighbours are whole or half numbers, so the cell floor(2 v) has one nearest
// value. Cell c covers [(c - 256) / 2, (c - 255) / 2).
constexpr std::array<std::uint8_t, 512> kNearest = [] {
  std::array<std::uint8_t, 512> table{};
  for (int cell = 0; cell < 512; ++cell) {
    const int four_times = 2 * (cell - 256) + 1;  // the middle of the cell, times 4
    int best = 0;
    for (int i = 1; i < 16; ++i) {
      const int here = 4 * kIq4NlValues[i] - four_times;
      const int there = 4 * kIq4NlValues[best] - four_times;
      if (here * here < there * there) best = i;
    }
    table[static_cast<std::size_t>(cell)] = static_cast<std::uint8_t>(best);
  }
  return table;
}();

constexpr std::array<float, 512> kNearestValue = [] {
  std::array<float, 512> table{};
  for (std::size_t cell = 0; cell < 512; ++cell) table[cell] = kIq4NlValues[kNearest[cell]];
  return table;
}();

std::size_t cell_of(float value) {
  const float cell = clamped(2.0f * value + 256.0f, 0.0f, 511.0f);
  return static_cast<std::size_t>(static_cast<int>(cell));
}
std::uint8_t nearest_index(float value) { return kNearest[cell_of(value)]; }
float nearest_value(float value) { return kNearestValue[cell_of(value)]; }

float error_of(const SearchBlock<kBlock>& block, float scale) {
  const float reciprocal = inverse(scale);
  float error = 0.0f;
  for (std::size_t i = 0; i < kBlock; ++i) {
    const float value = nearest_value(block.weights[i] * reciprocal);
    const float difference = block.weights[i] - scale * value;
    error += block.importance[i] * difference * difference;
  }
  return error;
}

float search_scale(const SearchBlock<kBlock>& block) {
  const float largest = signed_largest(block.group<kBlock>(0));
  if (std::fabs(largest) < kSmallestWeight) return 0.0f;
  float best = largest / kIq4NlValues[0];
  float best_gain = 0.0f;
  const auto consider = [&](float reciprocal) {
    float xq = 0.0f;
    float qq = 0.0f;
    for (std::size_t i = 0; i < kBlock; ++i) {
      const float q = nearest_value(block.weights[i] * reciprocal);
      xq += block.importance[i] * block.weights[i] * q;
      qq += block.importance[i] * q * q;
    }
    if (qq <= 0.0f || xq * xq <= best_gain * qq) return;
    best_gain = xq * xq / qq;
    best = xq / qq;
  };
  // The largest weight at and around either end of the values, clipped by up to a fifth.
  for (int i = -2; i <= 6; ++i) {
    const float shift = 4.0f * static_cast<float>(i);
    consider((static_cast<float>(kIq4NlValues[0]) - shift) / largest);
    consider((static_cast<float>(kIq4NlValues[15]) + shift) / largest);
  }
  for (int i = 0; i < 2; ++i) consider(1.0f / best);
  return best;
}

}  // namespace

void decode_iq4_nl(std::span<const std::byte> blocks, std::span<float> out) {
  decode_blocks<BlockIQ4_NL, kBlock>(blocks, out, [](const BlockIQ4_NL& block, auto to) {
    const float scale = f16_to_f32(block.scale);
    for (std::size_t i = 0; i < 16; ++i) {
      to[i] = scale * static_cast<float>(kIq4NlValues[block.low[i] & 15]);
      to[i + 16] = scale * static_cast<float>(kIq4NlValues[block.low[i] >> 4]);
    }
  });
}

void encode_iq4_nl(std::span<const float> in, std::span<const float> importance,
                   std::span<std::byte> blocks) {
  encode_blocks<BlockIQ4_NL, kBlock>(
      in, importance, blocks, [](const SearchBlock<kBlock>& search, BlockIQ4_NL& block) {
        const float searched = as_stored(search_scale(search));
        const float plain = as_stored(signed_largest(search.group<kBlock>(0)) / kIq4NlValues[0]);
        const float scale =
            error_of(search, searched) <= error_of(search, plain) ? searched : plain;
        block.scale = scale_to_f16(scale);
        const float reciprocal = inverse(scale);
        for (std::size_t i = 0; i < 16; ++i) {
          const int low = nearest_index(search.weights[i] * reciprocal);
          const int high = nearest_index(search.weights[i + 16] * reciprocal);
          block.low[i] = static_cast<std::uint8_t>(low | (high << 4));
        }
      });
}

}  // namespace hone::quant

// Blocks of 32 with one f16 scale: q4_0, q5_0, q8_0 (symmetric), q4_1, q5_1 (with a minimum).
// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "quant/members.h"
#include "quant/search.h"

namespace hone::quant {
namespace {

constexpr std::size_t kBlock = 32;
using Quants = std::array<std::uint8_t, kBlock>;

void put_low(const Quants& q, std::uint8_t (&low)[16]) {
  for (std::size_t i = 0; i < 16; ++i) {
    low[i] = static_cast<std::uint8_t>((q[i] & 15) | (q[i + 16] << 4));
  }
}

Quants get_low(const std::uint8_t (&low)[16]) {
  Quants q;
  for (std::size_t i = 0; i < 16; ++i) {
    q[i] = low[i] & 15;
    q[i + 16] = static_cast<std::uint8_t>(low[i] >> 4);
  }
  return q;
}

void put_high(const Quants& q, std::uint8_t (&high)[4]) {
  for (std::size_t i = 0; i < kBlock; ++i) {
    high[i / 8] = static_cast<std::uint8_t>(high[i / 8] | ((q[i] >> 4) << (i % 8)));
  }
}

void add_high(const std::uint8_t (&high)[4], Quants& q) {
  for (std::size_t i = 0; i < kBlock; ++i) {
    q[i] = static_cast<std::uint8_t>(q[i] | (((high[i / 8] >> (i % 8)) & 1) << 4));
  }
}

// The f16 scale of least error among the searched one and the plain one (largest weight at `low`).
float choose_symmetric(const SearchBlock<kBlock>& block, float low, float high, int steps,
                       float step) {
  const auto x = block.group<kBlock>(0);
  const auto factors = block.factors<kBlock>(0);
  const float searched = as_stored(fit_symmetric(x, factors, low, high, steps, step));
  const float plain = as_stored(signed_largest(x) / low);
  return symmetric_error(x, factors, searched, low, high) <=
                 symmetric_error(x, factors, plain, low, high)
             ? searched
             : plain;
}

Quants quantize_symmetric(const SearchBlock<kBlock>& block, float scale, float low, float high) {
  const float reciprocal = inverse(scale);
  Quants q;
  for (std::size_t i = 0; i < kBlock; ++i) {
    q[i] =
        static_cast<std::uint8_t>(nearest(clamped(block.weights[i] * reciprocal, low, high)) - low);
  }
  return q;
}

// The same for (scale, minimum), both rounded to f16.
Affine choose_affine(const SearchBlock<kBlock>& block, float high, AffineRange range) {
  const auto x = block.group<kBlock>(0);
  const auto factors = block.factors<kBlock>(0);
  const auto stored = [](Affine fit) {
    return Affine{as_stored(fit.scale), as_stored(fit.minimum)};
  };
  float lowest = x[0];
  float largest = x[0];
  for (const float value : x) {
    lowest = value < lowest ? value : lowest;
    largest = value > largest ? value : largest;
  }
  const Affine searched = stored(fit_affine(x, factors, high, range));
  const Affine plain = stored({(largest - lowest) / high, lowest});
  return affine_error(x, factors, searched, high) <= affine_error(x, factors, plain, high)
             ? searched
             : plain;
}

Quants quantize_affine(const SearchBlock<kBlock>& block, Affine fit, float high) {
  const float reciprocal = inverse(fit.scale);
  Quants q;
  for (std::size_t i = 0; i < kBlock; ++i) {
    q[i] = static_cast<std::uint8_t>(
        nearest(clamped((block.weights[i] - fit.minimum) * reciprocal, 0.0f, high)));
  }
  return q;
}

constexpr AffineRange kRange4{6, 0.25f, false};
constexpr AffineRange kRange5{6, 0.25f, false};

}  // namespace

void decode_q4_0(std::span<const std::byte> blocks, std::span<float> out) {
  decode_blocks<BlockQ4_0, kBlock>(blocks, out, [](const BlockQ4_0& block, auto to) {
    const float scale = f16_to_f32(block.scale);
    const Quants q = get_low(block.low);
    for (std::size_t i = 0; i < kBlock; ++i) to[i] = scale * static_cast<float>(q[i] - 8);
  });
}

void encode_q4_0(std::span<const float> in, std::span<const float> importance,
                 std::span<std::byte> blocks) {
  encode_blocks<BlockQ4_0, kBlock>(in, importance, blocks, [](const auto& search, auto& block) {
    const float scale = choose_symmetric(search, -8, 7, 17, 0.125f);
    block.scale = scale_to_f16(scale);
    put_low(quantize_symmetric(search, scale, -8, 7), block.low);
  });
}

void decode_q4_1(std::span<const std::byte> blocks, std::span<float> out) {
  decode_blocks<BlockQ4_1, kBlock>(blocks, out, [](const BlockQ4_1& block, auto to) {
    const float scale = f16_to_f32(block.scale);
    const float minimum = f16_to_f32(block.minimum);
    const Quants q = get_low(block.low);
    for (std::size_t i = 0; i < kBlock; ++i) to[i] = scale * static_cast<float>(q[i]) + minimum;
  });
}

void encode_q4_1(std::span<const float> in, std::span<const float> importance,
                 std::span<std::byte> blocks) {
  encode_blocks<BlockQ4_1, kBlock>(in, importance, blocks, [](const auto& search, auto& block) {
    const Affine fit = choose_affine(search, 15, kRange4);
    block.scale = scale_to_f16(fit.scale);
    block.minimum = scale_to_f16(fit.minimum);
    put_low(quantize_affine(search, fit, 15), block.low);
  });
}

void decode_q5_0(std::span<const std::byte> blocks, std::span<float> out) {
  decode_blocks<BlockQ5_0, kBlock>(blocks, out, [](const BlockQ5_0& block, auto to) {
    const float scale = f16_to_f32(block.scale);
    Quants q = get_low(block.low);
    add_high(block.high, q);
    for (std::size_t i = 0; i < kBlock; ++i) to[i] = scale * static_cast<float>(q[i] - 16);
  });
}

void encode_q5_0(std::span<const float> in, std::span<const float> importance,
                 std::span<std::byte> blocks) {
  encode_blocks<BlockQ5_0, kBlock>(in, importance, blocks, [](const auto& search, auto& block) {
    const float scale = choose_symmetric(search, -16, 15, 17, 0.125f);
    block.scale = scale_to_f16(scale);
    const Quants q = quantize_symmetric(search, scale, -16, 15);
    put_low(q, block.low);
    put_high(q, block.high);
  });
}

void decode_q5_1(std::span<const std::byte> blocks, std::span<float> out) {
  decode_blocks<BlockQ5_1, kBlock>(blocks, out, [](const BlockQ5_1& block, auto to) {
    const float scale = f16_to_f32(block.scale);
    const float minimum = f16_to_f32(block.minimum);
    Quants q = get_low(block.low);
    add_high(block.high, q);
    for (std::size_t i = 0; i < kBlock; ++i) to[i] = scale * static_cast<float>(q[i]) + minimum;
  });
}

void encode_q5_1(std::span<const float> in, std::span<const float> importance,
                 std::span<std::byte> blocks) {
  encode_blocks<BlockQ5_1, kBlock>(in, importance, blocks, [](const auto& search, auto& block) {
    const Affine fit = choose_affine(search, 31, kRange5);
    block.scale = scale_to_f16(fit.scale);
    block.minimum = scale_to_f16(fit.minimum);
    const Quants q = quantize_affine(search, fit, 31);
    put_low(q, block.low);
    put_high(q, block.high);
  });
}

void decode_q8_0(std::span<const std::byte> blocks, std::span<float> out) {
  decode_blocks<BlockQ8_0, kBlock>(blocks, out, [](const BlockQ8_0& block, auto to) {
    const float scale = f16_to_f32(block.scale);
    for (std::size_t i = 0; i < kBlock; ++i) to[i] = static_cast<float>(block.quants[i]) * scale;
  });
}

void encode_q8_0(std::span<const float> in, std::span<const float> importance,
                 std::span<std::byte> blocks) {
  encode_blocks<BlockQ8_0, kBlock>(in, importance, blocks, [](const auto& search, auto& block) {
    // -128 is left out: integer dot products of some instruction sets need |q| to fit in 7 bits.
    const float scale = choose_symmetric(search, -127, 127, 9, 0.25f);
    block.scale = scale_to_f16(scale);
    const float reciprocal = inverse(scale);
    for (std::size_t i = 0; i < kBlock; ++i) {
      block.quants[i] = static_cast<std::int8_t>(
          nearest(clamped(search.weights[i] * reciprocal, -127.0f, 127.0f)));
    }
  });
}

}  // namespace hone::quant

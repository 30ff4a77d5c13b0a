// Bytes of one block of every quantized format, as GGUF files hold them (little endian).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace hone::quant {

// All members are naturally aligned without padding, so a struct can be read from a file with
// memcpy, or in place where the address is even. `f16` marks bits of an IEEE half.
using f16 = std::uint16_t;

// 32 weights; in the 4-bit formats byte i of `low` holds weight i (bits 0-3) and i + 16 (bits 4-7).

struct BlockQ4_0 {  // w = scale * (q - 8)
  f16 scale;
  std::uint8_t low[16];
};

struct BlockQ4_1 {  // w = scale * q + minimum
  f16 scale;
  f16 minimum;
  std::uint8_t low[16];
};

struct BlockQ5_0 {  // w = scale * (q - 16); q = low 4 bits, and bit i of `high` as bit 4
  f16 scale;
  std::uint8_t high[4];
  std::uint8_t low[16];
};

struct BlockQ5_1 {  // w = scale * q + minimum
  f16 scale;
  f16 minimum;
  std::uint8_t high[4];
  std::uint8_t low[16];
};

struct BlockQ8_0 {  // w = q * scale
  f16 scale;
  std::int8_t quants[32];
};

struct BlockIQ4_NL {  // w = scale * kIq4NlValues[q]
  f16 scale;
  std::uint8_t low[16];
};

// Denser near zero, as weights are.
inline constexpr std::int8_t kIq4NlValues[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                                 1,    13,   25,  38,  53,  69,  89,  113};

// 256 weights ("super-block") in groups of 16 or 32, each with a small integer scale.
// 2-bit parts: byte 32 h + l of `quants` holds weights 128 h + l + {0, 32, 64, 96} in bits 0-1,
// 2-3, 4-5, 6-7, for h < 2, l < 32.

struct BlockQ2_K {          // w = (scale * s) * q - (minimum * m); groups of 16
  std::uint8_t scales[16];  // s in bits 0-3, m in bits 4-7
  std::uint8_t quants[64];
  f16 scale;
  f16 minimum;
};

struct BlockQ3_K {  // w = (scale * (s - 32)) * (q - 4 where the mask's bit is 0); groups of 16
  std::uint8_t mask[32];    // bit j of byte l: weight 32 j + l
  std::uint8_t quants[64];  // as Q2_K
  // s_j, 6 bits: low 4 in byte j (bits 0-3) for j < 8, in byte j - 8 (bits 4-7) for j >= 8;
  // high 2 in byte 8 + j % 4, at bit 2 (j / 4).
  std::uint8_t scales[12];
  f16 scale;
};

// Scales of Q4_K and Q5_K, 8 pairs of 6 bits (s_j, m_j) in 12 bytes: for j < 4 s_j is in byte j
// bits 0-5, m_j in byte 4 + j bits 0-5; for j >= 4 the low 4 bits of s_j and m_j are bits 0-3 and
// 4-7 of byte 4 + j, and their high 2 bits are bits 6-7 of bytes j - 4 and j.

struct BlockQ4_K {  // w = (scale * s) * q - (minimum * m); groups of 32
  f16 scale;
  f16 minimum;
  std::uint8_t scales[12];
  std::uint8_t quants[128];  // byte 32 h + l: weights 64 h + l (bits 0-3) and 64 h + l + 32
};

struct BlockQ5_K {  // as Q4_K, with bit j of byte l of `high` as bit 4 of weight 32 j + l
  f16 scale;
  f16 minimum;
  std::uint8_t scales[12];
  std::uint8_t high[32];
  std::uint8_t quants[128];
};

struct BlockQ6_K {  // w = (scale * s) * (q - 32); groups of 16
  // Byte 64 h + l, l < 64: low 4 bits of weights 128 h + l (bits 0-3) and 128 h + l + 64.
  std::uint8_t low[128];
  std::uint8_t high[64];  // high 2 bits, placed as Q2_K's quants
  std::int8_t scales[16];
  f16 scale;
};

static_assert(sizeof(BlockQ4_0) == 18 && sizeof(BlockQ4_1) == 20);
static_assert(sizeof(BlockQ5_0) == 22 && sizeof(BlockQ5_1) == 24);
static_assert(sizeof(BlockQ8_0) == 34 && sizeof(BlockIQ4_NL) == 18);
static_assert(sizeof(BlockQ2_K) == 84 && sizeof(BlockQ3_K) == 110);
static_assert(sizeof(BlockQ4_K) == 144 && sizeof(BlockQ5_K) == 176 && sizeof(BlockQ6_K) == 210);

// Pair j < 8 of the packed scales of Q4_K and Q5_K.
struct ScalePair {
  std::uint8_t scale;
  std::uint8_t minimum;
};
inline ScalePair unpack_scale_pair(const std::uint8_t (&packed)[12], int j) {
  if (j < 4) {
    return {static_cast<std::uint8_t>(packed[j] & 63),
            static_cast<std::uint8_t>(packed[j + 4] & 63)};
  }
  return {static_cast<std::uint8_t>((packed[j + 4] & 15) | ((packed[j - 4] >> 6) << 4)),
          static_cast<std::uint8_t>((packed[j + 4] >> 4) | ((packed[j] >> 6) << 4))};
}

}  // namespace hone::quant

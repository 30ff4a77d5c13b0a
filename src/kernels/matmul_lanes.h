// Sixteen output rows at a time: the few operations that matrix multiplication needs of a CPU.
// SPDX-License-Identifier: Apache-2.0
//
// Floats: one f32 of each of 16 rows. Codes: 4 consecutive columns (a quad) of 16 rows, u8,
// row-major. Dots<bits, quads>: one i32 of each row, the sum over a block (so many quads) of codes
// of so many bits times signed activations in [-127, 127], and a start value, which begin or
// bits_as_floats adds. The block's quads are added in order, kPasses times over, each pass part of
// the codes' bits. Included by families alone, behind an isa header.
#pragma once

#include <immintrin.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>

#if defined(HONE_ISA_SCALAR)
#define HONE_UNROLL  // the fallback: compiled fast, too
#else
#define HONE_UNROLL _Pragma("GCC unroll 16")
#endif
#define HONE_INLINE inline __attribute__((always_inline))
#define HONE_LAMBDA __attribute__((always_inline))

namespace hone::kernels::HONE_ISA_NAMESPACE {
namespace {

HONE_INLINE std::int32_t load_word(const void* from) {
  std::int32_t word;
  std::memcpy(&word, from, sizeof(word));
  return word;
}

HONE_INLINE void prefetch(const std::byte* from) { _mm_prefetch(from, _MM_HINT_T0); }

// visit.template operator()<0>(), ... <kCount - 1>(), in order.
template <int kCount, typename Visit>
HONE_INLINE void each_index(Visit visit) {
  [&]<int... kIndices>(std::integer_sequence<int, kIndices...>) HONE_LAMBDA {
    (visit.template operator()<kIndices>(), ...);
  }
  (std::make_integer_sequence<int, kCount>());
}

#if defined(HONE_ISA_AVX512)

// VPDPBUSD takes all codes alike.
constexpr int dot_bits(int) { return 8; }

// Tile shapes (tokens x panels of 16 rows): 12 integer and 12 float accumulators of 32 registers.
inline constexpr int kTileTokens = 6;
inline constexpr int kTilePanels = 2;
inline constexpr int kWideTokens = 8;   // of a tile of one panel
inline constexpr int kDirectTiles = 1;  // of a group that works from the packed weights
inline constexpr int kGroupTiles = 16;
inline constexpr bool kFirstTileUnpacks = true;  // for the group's other tiles
// Weights are asked for so far ahead. From memory, Q4_1, one thread: 26 GB/s for one token and 20
// for four; at 2 KB 20 and 9 (Emerald Rapids, 2026-11-23).
inline constexpr std::int64_t kPrefetchBytes = 8192;
inline constexpr int kFloatTileTokens = 12;

struct Floats {
  __m512 v;
};
HONE_INLINE Floats splat(float x) { return {_mm512_set1_ps(x)}; }
HONE_INLINE Floats load_floats(const float* from) { return {_mm512_loadu_ps(from)}; }
HONE_INLINE void store_floats(Floats x, float* to) { _mm512_storeu_ps(to, x.v); }
HONE_INLINE Floats add(Floats a, Floats b) { return {_mm512_add_ps(a.v, b.v)}; }
HONE_INLINE Floats subtract(Floats a, Floats b) { return {_mm512_sub_ps(a.v, b.v)}; }
HONE_INLINE Floats multiply(Floats a, Floats b) { return {_mm512_mul_ps(a.v, b.v)}; }
HONE_INLINE Floats divide(Floats a, Floats b) { return {_mm512_div_ps(a.v, b.v)}; }
HONE_INLINE Floats fma(Floats a, Floats b, Floats c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
HONE_INLINE Floats fms(Floats a, Floats b, Floats c) { return {_mm512_fmsub_ps(a.v, b.v, c.v)}; }
HONE_INLINE Floats minimum(Floats a, Floats b) { return {_mm512_min_ps(a.v, b.v)}; }
HONE_INLINE Floats maximum(Floats a, Floats b) { return {_mm512_max_ps(a.v, b.v)}; }
// x * 2^n for integral n in [-126, 127].
HONE_INLINE Floats scale_by_power(Floats x, Floats n) {
  const __m512i exponent = _mm512_add_epi32(_mm512_cvtps_epi32(n.v), _mm512_set1_epi32(127));
  return {_mm512_mul_ps(x.v, _mm512_castsi512_ps(_mm512_slli_epi32(exponent, 23)))};
}
HONE_INLINE Floats floats_of_halves(const std::byte* from) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)))};
}
HONE_INLINE Floats floats_of_u8(const std::byte* from) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return {_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes))};
}
HONE_INLINE Floats floats_of_i8(const std::byte* from) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes))};
}
// Of 16 pairs of bf16: column 0 or 1.
template <int kColumn>
HONE_INLINE Floats floats_of_bf16_pairs(const std::byte* from) {
  const __m512i pairs = _mm512_loadu_si512(from);
  return {_mm512_castsi512_ps(kColumn == 0 ? _mm512_slli_epi32(pairs, 16)
                                           : _mm512_and_si512(pairs, _mm512_set1_epi32(~0xffff)))};
}

struct Codes {
  __m512i v;
};
HONE_INLINE Codes load_codes(const std::byte* from) { return {_mm512_loadu_si512(from)}; }
HONE_INLINE void store_codes(Codes x, std::byte* to) { _mm512_storeu_si512(to, x.v); }
template <int kShift>
HONE_INLINE __m512i shifted(Codes x) {
  if constexpr (kShift > 0) return _mm512_srli_epi16(x.v, kShift);
  if constexpr (kShift < 0) return _mm512_slli_epi16(x.v, -kShift);
  return x.v;
}
// (x >> shift) & mask in each byte; a negative shift goes left.
template <int kShift, int kMask>
HONE_INLINE Codes bits(Codes x) {
  return {_mm512_and_si512(shifted<kShift>(x), _mm512_set1_epi8(static_cast<char>(kMask)))};
}
// base | ((x >> shift) & mask)
template <int kShift, int kMask>
HONE_INLINE Codes insert_bits(Codes base, Codes x) {
  const __m512i mask = _mm512_set1_epi8(static_cast<char>(kMask));
  return {_mm512_ternarylogic_epi32(base.v, shifted<kShift>(x), mask, 0xf8)};
}
HONE_INLINE Codes look_up(Codes x, const std::uint8_t* table) {
  const __m128i one = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table));
  return {_mm512_shuffle_epi8(_mm512_broadcast_i32x4(one), x.v)};
}
// Byte kColumn of each row.
template <int kColumn>
HONE_INLINE Floats floats_of_column(Codes x) {
  __m512i word = x.v;
  if constexpr (kColumn > 0) word = _mm512_srli_epi32(word, 8 * kColumn);
  if constexpr (kColumn < 3) word = _mm512_and_si512(word, _mm512_set1_epi32(0xff));
  return {_mm512_cvtepi32_ps(word)};
}

struct Quad {
  __m512i v;  // the same 4 activations for each row
};
HONE_INLINE Quad splat_quad(const std::int8_t* from) {
  return {_mm512_set1_epi32(load_word(from))};
}

template <int kBits, int kQuads>
struct Dots {
  static constexpr int kPasses = 1;
  __m512i v;
  template <int kPass>
  static HONE_INLINE Codes part(Codes weights) {
    return weights;
  }
  HONE_INLINE void begin(const float* start) { v = _mm512_set1_epi32(load_word(start)); }
  template <int kPass, int kIndex>
  HONE_INLINE void add_quad(Codes weights, Quad activations) {
    v = _mm512_dpbusd_epi32(v, weights.v, activations.v);
  }
  HONE_INLINE Floats bits_as_floats(const float*) const { return {_mm512_castsi512_ps(v)}; }
};

#elif defined(HONE_ISA_AVX2)

constexpr int dot_bits(int code_bits) { return code_bits < 4 ? 4 : code_bits; }

// Sixteen registers: eight sums of 16 bits; those of f32 come and go. Four and five tokens are
// within 2 % of each other, three 3 % slower, two 20 % (Q4_1, Zen 3, 2026-11-25).
inline constexpr int kTileTokens = 4;
inline constexpr int kTilePanels = 1;
inline constexpr int kWideTokens = 4;
inline constexpr int kDirectTiles = 2;
inline constexpr int kGroupTiles = 32;
inline constexpr bool kFirstTileUnpacks = false;
// One token, share of what plain reading gives: 0.85 to 0.92, at 8 KB 0.74 to 0.84, at 1 KB 0.67 to
// 0.82 (Zen 3, one thread, 2026-11-25).
inline constexpr std::int64_t kPrefetchBytes = 3072;
inline constexpr int kFloatTileTokens = 5;

struct Floats {
  __m256 a, b;  // rows 0..7, rows 8..15
};
HONE_INLINE Floats splat(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
HONE_INLINE Floats load_floats(const float* from) {
  return {_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)};
}
HONE_INLINE void store_floats(Floats x, float* to) {
  _mm256_storeu_ps(to, x.a);
  _mm256_storeu_ps(to + 8, x.b);
}
HONE_INLINE Floats add(Floats x, Floats y) {
  return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)};
}
HONE_INLINE Floats subtract(Floats x, Floats y) {
  return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)};
}
HONE_INLINE Floats multiply(Floats x, Floats y) {
  return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)};
}
HONE_INLINE Floats divide(Floats x, Floats y) {
  return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)};
}
HONE_INLINE Floats fma(Floats x, Floats y, Floats z) {
  return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
HONE_INLINE Floats fms(Floats x, Floats y, Floats z) {
  return {_mm256_fmsub_ps(x.a, y.a, z.a), _mm256_fmsub_ps(x.b, y.b, z.b)};
}
HONE_INLINE Floats minimum(Floats x, Floats y) {
  return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)};
}
HONE_INLINE Floats maximum(Floats x, Floats y) {
  return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)};
}
HONE_INLINE __m256 scale_by_power(__m256 x, __m256 n) {
  const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
  return _mm256_mul_ps(x, _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23)));
}
HONE_INLINE Floats scale_by_power(Floats x, Floats n) {
  return {scale_by_power(x.a, n.a), scale_by_power(x.b, n.b)};
}
HONE_INLINE __m128i load_half_register(const std::byte* from) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
}
HONE_INLINE __m256i load_register(const std::byte* from) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
}
HONE_INLINE Floats floats_of_halves(const std::byte* from) {
  return {_mm256_cvtph_ps(load_half_register(from)),
          _mm256_cvtph_ps(load_half_register(from + 16))};
}
HONE_INLINE Floats floats_of_u8(const std::byte* from) {
  const __m128i bytes = load_half_register(from);
  return {_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes)),
          _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8)))};
}
HONE_INLINE Floats floats_of_i8(const std::byte* from) {
  const __m128i bytes = load_half_register(from);
  return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)),
          _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8)))};
}
template <int kColumn>
HONE_INLINE __m256 floats_of_bf16_pair(__m256i pairs) {
  return _mm256_castsi256_ps(kColumn == 0 ? _mm256_slli_epi32(pairs, 16)
                                          : _mm256_and_si256(pairs, _mm256_set1_epi32(~0xffff)));
}
template <int kColumn>
HONE_INLINE Floats floats_of_bf16_pairs(const std::byte* from) {
  return {floats_of_bf16_pair<kColumn>(load_register(from)),
          floats_of_bf16_pair<kColumn>(load_register(from + 32))};
}

struct Codes {
  __m256i a, b;
};
HONE_INLINE Codes load_codes(const std::byte* from) {
  return {load_register(from), load_register(from + 32)};
}
HONE_INLINE void store_codes(Codes x, std::byte* to) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), x.a);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 32), x.b);
}
template <int kShift, int kMask>
HONE_INLINE __m256i bits(__m256i x) {
  if constexpr (kShift > 0) x = _mm256_srli_epi16(x, kShift);
  if constexpr (kShift < 0) x = _mm256_slli_epi16(x, -kShift);
  return _mm256_and_si256(x, _mm256_set1_epi8(static_cast<char>(kMask)));
}
template <int kShift, int kMask>
HONE_INLINE Codes bits(Codes x) {
  return {bits<kShift, kMask>(x.a), bits<kShift, kMask>(x.b)};
}
template <int kShift, int kMask>
HONE_INLINE Codes insert_bits(Codes base, Codes x) {
  return {_mm256_or_si256(base.a, bits<kShift, kMask>(x.a)),
          _mm256_or_si256(base.b, bits<kShift, kMask>(x.b))};
}
HONE_INLINE Codes look_up(Codes x, const std::uint8_t* table) {
  const __m256i both =
      _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table)));
  return {_mm256_shuffle_epi8(both, x.a), _mm256_shuffle_epi8(both, x.b)};
}
template <int kColumn>
HONE_INLINE __m256 floats_of_column(__m256i word) {
  if constexpr (kColumn > 0) word = _mm256_srli_epi32(word, 8 * kColumn);
  if constexpr (kColumn < 3) word = _mm256_and_si256(word, _mm256_set1_epi32(0xff));
  return _mm256_cvtepi32_ps(word);
}
template <int kColumn>
HONE_INLINE Floats floats_of_column(Codes x) {
  return {floats_of_column<kColumn>(x.a), floats_of_column<kColumn>(x.b)};
}

struct Quad {
  __m256i v;
};
HONE_INLINE Quad splat_quad(const std::int8_t* from) {
  return {_mm256_set1_epi32(load_word(from))};
}

// An optimizer that takes sums apart adds products late, and so runs out of registers for them.
HONE_INLINE void pin(__m256i& x) { asm("" : "+x"(x)); }

// VPMADDUBSW saturates at 16 bits. Two products of `bits` bits and 127 fit up to 7 bits, and eight
// pairs (4 bits), four (5 bits) or two (6 bits) of them can be added before they are widened. Codes
// of 8 bits are taken in two passes, low and high nibbles.
template <int kBits, int kQuads>
struct Dots {
  static constexpr int kPasses = kBits == 8 ? 2 : 1;
  static constexpr int kFit = kBits <= 4 || kBits == 8 ? 8 : kBits == 5 ? 4 : 2;
  static constexpr int kPairs = kFit < kQuads ? kFit : kQuads;
  __m256i a, b;              // i32
  __m256i short_a, short_b;  // i16 pairs that wait to be widened
  template <int kPass>
  static HONE_INLINE Codes part(Codes weights) {
    if constexpr (kPasses == 2) return bits<4 * kPass, 15>(weights);
    return weights;
  }
  HONE_INLINE void begin(const float*) {}
  template <int kPass, int kIndex>
  HONE_INLINE void add_quad(Codes weights, Quad activations) {
    const __m256i x = _mm256_maddubs_epi16(weights.a, activations.v);
    const __m256i y = _mm256_maddubs_epi16(weights.b, activations.v);
    short_a = kIndex % kPairs == 0 ? x : _mm256_add_epi16(short_a, x);
    short_b = kIndex % kPairs == 0 ? y : _mm256_add_epi16(short_b, y);
    pin(short_a);
    pin(short_b);
    if constexpr (kIndex % kPairs == kPairs - 1) {
      const __m256i weight = _mm256_set1_epi16(kPass == 0 ? 1 : 16);
      const __m256i wide_a = _mm256_madd_epi16(short_a, weight);
      const __m256i wide_b = _mm256_madd_epi16(short_b, weight);
      constexpr bool kFirst = kPass == 0 && kIndex == kPairs - 1;
      a = kFirst ? wide_a : _mm256_add_epi32(a, wide_a);
      b = kFirst ? wide_b : _mm256_add_epi32(b, wide_b);
    }
  }
  HONE_INLINE Floats bits_as_floats(const float* start) const {
    const __m256i all = _mm256_set1_epi32(load_word(start));
    return {_mm256_castsi256_ps(_mm256_add_epi32(a, all)),
            _mm256_castsi256_ps(_mm256_add_epi32(b, all))};
  }
};

#else

constexpr int dot_bits(int) { return 8; }

inline constexpr int kTileTokens = 1;
inline constexpr int kTilePanels = 1;
inline constexpr int kWideTokens = 1;
inline constexpr int kDirectTiles = 1;
inline constexpr int kGroupTiles = 96;
inline constexpr bool kFirstTileUnpacks = false;
inline constexpr std::int64_t kPrefetchBytes = 0;
inline constexpr int kFloatTileTokens = 2;

struct Floats {
  float v[16];
};
template <typename Op>
inline Floats each_row(Op op) {
  Floats out;
  for (int row = 0; row < 16; ++row) out.v[row] = op(row);
  return out;
}
inline Floats splat(float x) {
  return each_row([&](int) { return x; });
}
inline Floats load_floats(const float* from) {
  Floats out;
  std::memcpy(out.v, from, sizeof(out.v));
  return out;
}
inline void store_floats(const Floats& x, float* to) { std::memcpy(to, x.v, sizeof(x.v)); }
inline Floats add(const Floats& a, const Floats& b) {
  return each_row([&](int i) { return a.v[i] + b.v[i]; });
}
inline Floats subtract(const Floats& a, const Floats& b) {
  return each_row([&](int i) { return a.v[i] - b.v[i]; });
}
inline Floats multiply(const Floats& a, const Floats& b) {
  return each_row([&](int i) { return a.v[i] * b.v[i]; });
}
inline Floats divide(const Floats& a, const Floats& b) {
  return each_row([&](int i) { return a.v[i] / b.v[i]; });
}
inline Floats fma(const Floats& a, const Floats& b, const Floats& c) {
  return each_row([&](int i) { return std::fma(a.v[i], b.v[i], c.v[i]); });
}
inline Floats fms(const Floats& a, const Floats& b, const Floats& c) {
  return each_row([&](int i) { return std::fma(a.v[i], b.v[i], -c.v[i]); });
}
// As MINPS and MAXPS: the second if the comparison fails, so also if one is NaN.
inline Floats minimum(const Floats& a, const Floats& b) {
  return each_row([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
}
inline Floats maximum(const Floats& a, const Floats& b) {
  return each_row([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
inline Floats scale_by_power(const Floats& x, const Floats& n) {
  return each_row([&](int i) {
    // A NaN has no integer: as the vector units, 2^31 comes out, and the product stays NaN.
    const std::int32_t power = n.v[i] == n.v[i] ? static_cast<std::int32_t>(n.v[i]) : 0;
    return x.v[i] * std::bit_cast<float>((power + 127) << 23);
  });
}
inline float half_value(const std::byte* from) {
  std::uint16_t half;
  std::memcpy(&half, from, sizeof(half));
  const std::uint32_t magnitude = half & 0x7fffu;
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000u) << 16;
  if (magnitude >= 0x7c00u) return std::bit_cast<float>(sign | 0x7f800000u | (magnitude << 13));
  // The exponent's bias differs by 112; a multiplication also normalizes subnormals, exactly.
  const float value = std::bit_cast<float>(magnitude << 13) * 0x1p112f;
  return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(value));
}
inline Floats floats_of_halves(const std::byte* from) {
  return each_row([&](int i) { return half_value(from + 2 * i); });
}
inline Floats floats_of_u8(const std::byte* from) {
  return each_row([&](int i) { return static_cast<float>(static_cast<std::uint8_t>(from[i])); });
}
inline Floats floats_of_i8(const std::byte* from) {
  return each_row([&](int i) { return static_cast<float>(static_cast<std::int8_t>(from[i])); });
}
template <int kColumn>
inline Floats floats_of_bf16_pairs(const std::byte* from) {
  return each_row([&](int i) {
    std::uint16_t value;
    std::memcpy(&value, from + 4 * i + 2 * kColumn, sizeof(value));
    return std::bit_cast<float>(static_cast<std::uint32_t>(value) << 16);
  });
}

struct Codes {
  std::uint8_t v[64];
};
inline Codes load_codes(const std::byte* from) {
  Codes out;
  std::memcpy(out.v, from, sizeof(out.v));
  return out;
}
inline void store_codes(const Codes& x, std::byte* to) { std::memcpy(to, x.v, sizeof(x.v)); }
template <int kShift, int kMask>
inline int bits(int x) {
  return (kShift >= 0 ? x >> (kShift >= 0 ? kShift : 0) : x << (kShift < 0 ? -kShift : 0)) & kMask;
}
template <int kShift, int kMask>
inline Codes bits(const Codes& x) {
  Codes out;
  for (int i = 0; i < 64; ++i) out.v[i] = static_cast<std::uint8_t>(bits<kShift, kMask>(x.v[i]));
  return out;
}
template <int kShift, int kMask>
inline Codes insert_bits(const Codes& base, const Codes& x) {
  Codes out;
  for (int i = 0; i < 64; ++i) {
    out.v[i] = static_cast<std::uint8_t>(base.v[i] | bits<kShift, kMask>(x.v[i]));
  }
  return out;
}
inline Codes look_up(const Codes& x, const std::uint8_t* table) {
  Codes out;
  for (int i = 0; i < 64; ++i) out.v[i] = table[x.v[i]];
  return out;
}
template <int kColumn>
inline Floats floats_of_column(const Codes& x) {
  return each_row([&](int i) { return static_cast<float>(x.v[4 * i + kColumn]); });
}

struct Quad {
  const std::int8_t* v;
};
inline Quad splat_quad(const std::int8_t* from) { return {from}; }

template <int kBits, int kQuads>
struct Dots {
  static constexpr int kPasses = 1;
  std::int32_t v[16];
  template <int kPass>
  static inline const Codes& part(const Codes& weights) {
    return weights;
  }
  inline void begin(const float* start) {
    for (std::int32_t& x : v) x = load_word(start);
  }
  template <int kPass, int kIndex>
  inline void add_quad(const Codes& weights, Quad activations) {
    for (int row = 0; row < 16; ++row) {
      for (int i = 0; i < 4; ++i) v[row] += weights.v[4 * row + i] * activations.v[i];
    }
  }
  inline Floats bits_as_floats(const float*) const {
    return each_row([&](int i) { return std::bit_cast<float>(v[i]); });
  }
};

#endif

}  // namespace
}  // namespace hone::kernels::HONE_ISA_NAMESPACE

// What this machine can do at best: dot products and multiply-adds out of registers, and reading.
// SPDX-License-Identifier: Apache-2.0
#include "kernels/isa/math.h"
#include "kernels/isa/row.h"
#include "kernels/peak.h"

#if defined(HONE_ISA_AVX2)
#include <immintrin.h>
#endif

namespace hone::kernels::HONE_ISA_NAMESPACE {
namespace {

// Chains that are independent of each other: enough to cover 4 to 5 cycles of latency on two ports,
// few enough to stay in 16 registers.
constexpr int kChains = 12;

// The compiler may not know what is in v, so it can neither fold nor move what comes before.
template <typename V>
HWY_INLINE void hide(V& v) {
#if defined(HONE_ISA_SCALAR)
  asm volatile("" : "+x"(v));
#else
  asm volatile("" : "+v"(v));
#endif
}

}  // namespace

PeakRun peak_f32(std::uint64_t iterations) {
  const F32 d;
  VecF32 factor = splat(0.999f);
  VecF32 chains[kChains];
#pragma GCC unroll 16
  for (int c = 0; c < kChains; ++c) chains[c] = splat(static_cast<float>(c));
  for (std::uint64_t i = 0; i < iterations; ++i) {
#pragma GCC unroll 16
    for (int c = 0; c < kChains; ++c) {
      chains[c] = hn::MulAdd(chains[c], factor, factor);
      hide(chains[c].raw);
    }
  }
  VecF32 sum = hn::Zero(d);
#pragma GCC unroll 16
  for (int c = 0; c < kChains; ++c) sum = hn::Add(sum, chains[c]);
  return {iterations * kChains * kLanes * 2, sum_of_lanes(sum)};
}

#if defined(HONE_ISA_AVX512)

PeakRun peak_int8(std::uint64_t iterations) {
  const __m512i a = _mm512_set1_epi8(3);
  const __m512i b = _mm512_set1_epi8(-2);
  __m512i chains[kChains];
#pragma GCC unroll 16
  for (int c = 0; c < kChains; ++c) chains[c] = _mm512_set1_epi32(c);
  for (std::uint64_t i = 0; i < iterations; ++i) {
#pragma GCC unroll 16
    for (int c = 0; c < kChains; ++c) {
      chains[c] = _mm512_dpbusd_epi32(chains[c], a, b);
      hide(chains[c]);
    }
  }
  __m512i sum = _mm512_setzero_si512();
#pragma GCC unroll 16
  for (int c = 0; c < kChains; ++c) sum = _mm512_add_epi32(sum, chains[c]);
  return {iterations * kChains * 64 * 2, static_cast<double>(_mm512_reduce_add_epi32(sum))};
}

namespace {

// In a function of its own: AVX512_BF16 is not among the unit's flags.
__attribute__((target("avx512bf16"), noinline)) float dot_bf16(std::uint64_t iterations) {
  const __m512bh a = (__m512bh)_mm512_set1_epi16(0x3f80);  // 1.0
  const __m512bh b = (__m512bh)_mm512_set1_epi16(0x3a80);  // 2^-10
  __m512 chains[kChains];
#pragma GCC unroll 16
  for (int c = 0; c < kChains; ++c) chains[c] = _mm512_set1_ps(static_cast<float>(c));
  for (std::uint64_t i = 0; i < iterations; ++i) {
#pragma GCC unroll 16
    for (int c = 0; c < kChains; ++c) {
      chains[c] = _mm512_dpbf16_ps(chains[c], a, b);
      asm volatile("" : "+v"(chains[c]));
    }
  }
  __m512 sum = _mm512_setzero_ps();
#pragma GCC unroll 16
  for (int c = 0; c < kChains; ++c) sum = _mm512_add_ps(sum, chains[c]);
  return _mm512_reduce_add_ps(sum);
}

}  // namespace

PeakRun peak_bf16(std::uint64_t iterations) {
  if (!__builtin_cpu_supports("avx512bf16")) return {};
  return {iterations * kChains * 32 * 2, dot_bf16(iterations)};
}

#elif defined(HONE_ISA_AVX2)

// Without VNNI a dot product of bytes is three instructions.
PeakRun peak_int8(std::uint64_t iterations) {
  const __m256i a = _mm256_set1_epi8(3);
  const __m256i ones = _mm256_set1_epi16(1);
  __m256i b = _mm256_set1_epi8(-2);
  __m256i chains[kChains];
#pragma GCC unroll 16
  for (int c = 0; c < kChains; ++c) chains[c] = _mm256_set1_epi32(c);
  for (std::uint64_t i = 0; i < iterations; ++i) {
#pragma GCC unroll 16
    for (int c = 0; c < kChains; ++c) {
      hide(b);
      const __m256i pairs = _mm256_maddubs_epi16(a, b);
      chains[c] = _mm256_add_epi32(chains[c], _mm256_madd_epi16(pairs, ones));
      hide(chains[c]);
    }
  }
  VecI32 sum = hn::Zero(I32());
#pragma GCC unroll 16
  for (int c = 0; c < kChains; ++c) sum = hn::Add(sum, VecI32{chains[c]});
  return {iterations * kChains * 32 * 2,
          static_cast<double>(hn::GetLane(hn::SumOfLanes(I32(), sum)))};
}

PeakRun peak_bf16(std::uint64_t) { return {}; }

#else

PeakRun peak_int8(std::uint64_t iterations) {
  std::int32_t chains[kChains] = {};
  for (std::uint64_t i = 0; i < iterations; ++i) {
#pragma GCC unroll 16
    for (int c = 0; c < kChains; ++c) {
      std::int32_t a = c;
      asm volatile("" : "+r"(a));
      chains[c] += static_cast<std::int8_t>(a) * 3;
    }
  }
  std::int32_t sum = 0;
  for (const std::int32_t chain : chains) sum += chain;
  return {iterations * kChains * 2, static_cast<double>(sum)};
}

PeakRun peak_bf16(std::uint64_t) { return {}; }

#endif

std::uint64_t read_bandwidth(std::span<const std::byte> bytes) {
  // Integer adds of 64 bit words: exact, so the same on every instruction set.
  using U64 = hn::ScalableTag<std::uint64_t>;
  const U64 d;
  constexpr std::size_t kStep = kLanes * sizeof(float) < 8 ? 8 : kLanes * sizeof(float);
  constexpr std::size_t kWords = kStep / 8;
  const auto* words = reinterpret_cast<const std::uint64_t*>(bytes.data());
  const std::size_t count = bytes.size() / 8;
  auto sum0 = hn::Zero(d), sum1 = sum0, sum2 = sum0, sum3 = sum0;
  std::size_t i = 0;
  for (; i + 4 * kWords <= count; i += 4 * kWords) {
    sum0 = hn::Add(sum0, hn::LoadU(d, words + i));
    sum1 = hn::Add(sum1, hn::LoadU(d, words + i + kWords));
    sum2 = hn::Add(sum2, hn::LoadU(d, words + i + 2 * kWords));
    sum3 = hn::Add(sum3, hn::LoadU(d, words + i + 3 * kWords));
  }
  const auto sum = hn::Add(hn::Add(sum0, sum1), hn::Add(sum2, sum3));
  std::uint64_t result = hn::GetLane(hn::SumOfLanes(d, sum));
  for (; i < count; ++i) result += words[i];
  return result;
}

}  // namespace hone::kernels::HONE_ISA_NAMESPACE

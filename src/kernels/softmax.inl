// Softmax and log-sum-exp of one row: the Two-Pass Softmax and the three-pass forms it competes
// with (Dukhan and Ablavatski, arXiv 2001.04438).
// SPDX-License-Identifier: Apache-2.0
#include <hwy/cache_control.h>

#include "kernels/extended_sum.h"
#include "kernels/isa/math.h"
#include "kernels/isa/row.h"

namespace hone::kernels::HONE_ISA_NAMESPACE {
namespace {

// A single f32 accumulator drifts to 1e-4 over 16 M terms. So f32 sums run over a block that fits
// into the first level cache, and the blocks' sums are added in double.
constexpr std::size_t kBlock = 4096;

// Bytes ahead of the reader: the hardware's prefetchers stop at pages, and the arithmetic leaves
// them little lead. Each step of `count` vectors asks for the lines that lie this far ahead.
constexpr std::size_t kAhead = 4096;

template <std::size_t count>
HWY_INLINE void prefetch(const float* x) {
#if !defined(HONE_ISA_SCALAR)
  const char* ahead = reinterpret_cast<const char*>(x) + kAhead;
  for (std::size_t byte = 0; byte < count * kLanes * sizeof(float); byte += 64) {
    __builtin_prefetch(ahead + byte);
  }
#else
  static_cast<void>(x);
#endif
}

// Input and output beyond this many times the private cache are written past the caches: measured
// on Emerald Rapids (2 MiB L2, virtual machine), November 2026; docs/kernels.md has the table.
constexpr std::size_t kStreamBeyond = 2;

constexpr double kLn2 = 0.69314718055994530942;

constexpr float kNoExponent = -0x1p24f;  // below any exponent of a finite logit

// m * 2^n = e^x. AVX-512 lets -infinity through (NaN * 2^-infinity, which `term` makes 0).
HWY_INLINE Extended extended(VecF32 x) {
#if defined(HONE_ISA_AVX512)
  const VecF32 magic = splat(kRoundMagic);
  const VecF32 n = hn::Sub(fused(x, splat(0x1.715476p+0f), magic), magic);
  VecF32 t = fused(n, splat(-0x1.62E43p-1f), x);
  t = fused(n, splat(0x1.05C61p-29f), t);
  return {exp_reduced(t), n};
#else
  return extended_exp(x);
#endif
}

// mantissa * 2^distance, distance <= 0 or NaN; 0 where that is about 2^-126 or less: denormal
// results cost a hundred cycles each on some CPUs.
HWY_INLINE VecF32 term(VecF32 mantissa, VecF32 distance) {
#if defined(HONE_ISA_AVX512)
  const __mmask16 normal = _mm512_cmp_ps_mask(distance.raw, _mm512_set1_ps(-126.0f), _CMP_NLE_UQ);
  return VecF32{_mm512_maskz_scalef_ps(normal, mantissa.raw, distance.raw)};
#else
  return scale_down(mantissa, distance);
#endif
}

// e^v for v <= 0, 0 below about -87.3 (-infinity too); NaN stays NaN. Inside of a sum that has a
// term 1, kExact may be false: leaving out the low part of ln 2 is an error of |n| 2^-29 in a term
// 2^n.
template <bool kExact>
HWY_INLINE VecF32 exp_of_negative(VecF32 v) {
#if !defined(HONE_ISA_AVX512)
  v = at_least(v, -88.2f);  // 2^-127.2, whose power below is 0
#endif
  const VecF32 magic = splat(kRoundMagic);
  const VecF32 n = hn::Sub(fused(v, splat(0x1.715476p+0f), magic), magic);
  VecF32 t = fused(n, splat(-0x1.62E43p-1f), v);
  if constexpr (kExact) t = fused(n, splat(0x1.05C61p-29f), t);
  const VecF32 mantissa = exp_reduced(t);
#if defined(HONE_ISA_AVX512)
  const __mmask16 normal = _mm512_cmp_ps_mask(v.raw, _mm512_set1_ps(-87.0f), _CMP_NLT_UQ);
  return VecF32{_mm512_maskz_scalef_ps(normal, mantissa.raw, n.raw)};
#else
  return scale_by_power(mantissa, n);
#endif
}

// The running sum of a whole row: mantissa * 2^exponent.
struct Total {
  double mantissa = 0.0;
  double exponent = kNoExponent;

  HWY_INLINE void add(double other_mantissa, double other_exponent) {
    const double distance = other_exponent - exponent;
    if (distance > 0.0) {
      mantissa = distance > 200.0 ? 0.0 : std::ldexp(mantissa, -static_cast<int>(distance));
      exponent = other_exponent;
      mantissa += other_mantissa;
    } else if (distance > -200.0) {
      mantissa += std::ldexp(other_mantissa, static_cast<int>(distance));
    }
  }

  // Mantissa in [1, 2), so that its reciprocal and the sum of the exponents stay in range.
  HWY_INLINE ExtendedSum normalized() const {
    if (mantissa == 0.0) return {0.0f, kNoExponent};
    int shift = 0;
    const double fraction = std::frexp(mantissa, &shift);
    return {static_cast<float>(2.0 * fraction), static_cast<float>(exponent + shift - 1)};
  }
};

#if defined(HONE_ISA_AVX512)

// Vectors that share one update of the running exponent: amortizes its maximum and rescaling.
constexpr std::size_t kTile = 8;

// Vectors of running sums, each lane with its own exponent.
struct Running {
  VecF32 mantissa;
  VecF32 exponent;
};

HWY_INLINE void accumulate_tile(const float* x, Running& sum) {
  const F32 d;
  Extended e[kTile];
  VecF32 top = sum.exponent;
  prefetch<kTile>(x);
  for (std::size_t j = 0; j < kTile; ++j) {
    e[j] = extended(hn::LoadU(d, x + j * kLanes));
    top = hn::Max(e[j].exponent, top);
  }
  VecF32 mantissa = term(sum.mantissa, hn::Sub(sum.exponent, top));
  for (std::size_t j = 0; j < kTile; ++j) {
    mantissa = hn::Add(mantissa, term(e[j].mantissa, hn::Sub(e[j].exponent, top)));
  }
  sum = {mantissa, top};
}

HWY_INLINE void accumulate_first(const float* x, std::size_t count, Running& sum) {
  const F32 d;
  const auto inside = hn::FirstN(d, count);
  Extended e = extended(hn::MaskedLoad(inside, d, x));
  e.mantissa = hn::IfThenElseZero(inside, e.mantissa);
  e.exponent = hn::IfThenElse(inside, e.exponent, splat(kNoExponent));
  const VecF32 top = hn::Max(e.exponent, sum.exponent);
  sum.mantissa = hn::Add(term(sum.mantissa, hn::Sub(sum.exponent, top)),
                         term(e.mantissa, hn::Sub(e.exponent, top)));
  sum.exponent = top;
}

// Pass 1: the sum of e^x, read once.
HWY_INLINE Total sum_extended(const float* x, std::size_t size) {
  const F32 d;
  Total total;
  for (std::size_t begin = 0; begin < size; begin += kBlock) {
    const std::size_t end = size - begin < kBlock ? size : begin + kBlock;
    Running sum{hn::Zero(d), splat(kNoExponent)};
    std::size_t i = begin;
    for (; i + kTile * kLanes <= end; i += kTile * kLanes) accumulate_tile(x + i, sum);
    for (; i < end; i += kLanes) {
      accumulate_first(x + i, end - i < kLanes ? end - i : kLanes, sum);
    }
    const float top = max_of_lanes(sum.exponent);
    const VecF32 aligned = term(sum.mantissa, hn::Sub(sum.exponent, splat(top)));
    total.add(sum_of_lanes(aligned), top);
  }
  return total;
}

#else

// One exponent for the whole row instead of one a lane: with it in hand before a block is read, a
// term costs no more than in the second read of the two-read form. That of the first elements
// serves nearly always; a block that goes far beyond it is done again with its own.
//
// A term is 2^y with y = x * kLog2E + offset, one rounding. The low part of log2(e) that kLog2E
// lacks would only matter for terms that are nothing beside the reference.
constexpr float kLog2E = 0x1.715476p+0f;
constexpr double kLog2EExactly = 1.44269504088896340736;
constexpr std::size_t kFirstLook = 256;
constexpr float kMostPower = 96.0f;  // 2^96 times the elements of a block is below 2^127

// sum + 2^y; 0 below 2^-127 (-infinity too), NaN stays NaN. The polynomial is exp_reduced's, in
// units of ln 2.
HWY_INLINE VecF32 add_power(VecF32 y, VecF32 sum) {
  y = at_least(y, -127.0f);
  const VecF32 magic = splat(kRoundMagic + 127.0f);
  const VecF32 shifted = hn::Add(y, magic);  // round(y) + 127 in its low bits
  const VecF32 t = hn::Sub(y, hn::Sub(shifted, magic));
  VecF32 p = splat(0x1.5BAF14p-10f);
  p = fused(p, t, splat(0x1.3CEA52p-7f));
  p = fused(p, t, splat(0x1.C6B770p-5f));
  p = fused(p, t, splat(0x1.EBF9BCp-3f));
  p = fused(p, t, splat(0x1.62E42Ap-1f));
  p = fused(p, t, splat(1.0f));
  const auto power = hn::ShiftLeft<23>(hn::BitCast(U32(), shifted));
  return fused(p, hn::BitCast(F32(), power), sum);
}

// The sum of 2^y over at most kBlock elements, and the largest y.
HWY_INLINE float sum_powers(const float* x, std::size_t size, float offset, float* largest) {
  const F32 d;
  const VecF32 log2_e = splat(kLog2E);
  const VecF32 from = splat(offset);
  VecF32 sum[4] = {hn::Zero(d), hn::Zero(d), hn::Zero(d), hn::Zero(d)};
  VecF32 top = splat(-127.0f);
  std::size_t i = 0;
  for (; i + 4 * kLanes <= size; i += 4 * kLanes) {
    prefetch<4>(x + i);
    for (std::size_t j = 0; j < 4; ++j) {
      const VecF32 y = fused(hn::LoadU(d, x + i + j * kLanes), log2_e, from);
      top = hn::Max(y, top);
      sum[j] = add_power(y, sum[j]);
    }
  }
  for (; i < size; i += kLanes) {
    const std::size_t rest = size - i < kLanes ? size - i : kLanes;
    const VecF32 y = hn::IfThenElse(hn::FirstN(d, rest),
                                    fused(load_first(x + i, rest), log2_e, from), splat(-127.0f));
    top = hn::Max(y, top);
    sum[0] = add_power(y, sum[0]);
  }
  *largest = max_of_lanes(top);
  return sum_of_lanes(hn::Add(hn::Add(sum[0], sum[1]), hn::Add(sum[2], sum[3])));
}

// Pass 1: the sum of e^x, read once.
HWY_INLINE Total sum_extended(const float* x, std::size_t size) {
  if (size == 0) return {};
  const float first = max_of_row(x, size < kFirstLook ? size : kFirstLook);
  float offset = -kLog2E * (first > -0x1p21f ? first : -0x1p21f);
  double sum = 0.0;
  for (std::size_t begin = 0; begin < size; begin += kBlock) {
    const std::size_t count = size - begin < kBlock ? size - begin : kBlock;
    float largest = 0.0f;
    float part = sum_powers(x + begin, count, offset, &largest);
    if (largest > kMostPower) {
      const float lower = offset - largest;
      sum *= std::exp2(static_cast<double>(lower) - static_cast<double>(offset));
      offset = lower;
      part = sum_powers(x + begin, count, offset, &largest);
    }
    sum += static_cast<double>(part);
  }
  // 2^y = e^(x - reference) for reference = -offset / kLog2E, now as a power of 2.
  const double exponent = -static_cast<double>(offset) * (kLog2EExactly / kLog2E);
  const double whole = std::floor(exponent);
  return {sum * std::exp2(exponent - whole), whole};
}

#endif

// out[i] = op(x[i]); streamed stores go past the caches.
template <bool kStream, typename Op>
HWY_INLINE void map_row(const float* x, float* out, std::size_t size, Op op) {
  const F32 d;
  std::size_t i = 0;
  if constexpr (kStream) {
    const std::size_t misaligned = reinterpret_cast<std::uintptr_t>(out) / sizeof(float) % kLanes;
    std::size_t head = misaligned == 0 ? 0 : kLanes - misaligned;
    head = head < size ? head : size;
    if (head > 0) store_first(op(load_first(x, head)), out, head);
    for (i = head; i + 4 * kLanes <= size; i += 4 * kLanes) {
      prefetch<4>(x + i);
      for (std::size_t j = 0; j < 4; ++j) {
        hn::Stream(op(hn::LoadU(d, x + i + j * kLanes)), d, out + i + j * kLanes);
      }
    }
    hwy::FlushStream();
  }
  for (; i + 4 * kLanes <= size; i += 4 * kLanes) {
    for (std::size_t j = 0; j < 4; ++j) {
      hn::StoreU(op(hn::LoadU(d, x + i + j * kLanes)), d, out + i + j * kLanes);
    }
  }
  for (; i < size; i += kLanes) {
    const std::size_t rest = size - i < kLanes ? size - i : kLanes;
    store_first(op(load_first(x + i, rest)), out + i, rest);
  }
}

// The sum of e^(x - top) over at most kBlock elements; with kStore, the terms go to out.
template <bool kStore>
HWY_INLINE float sum_block(const float* x, std::size_t size, float top, float* out) {
  const F32 d;
  const VecF32 maximum = splat(top);
  VecF32 sum[4] = {hn::Zero(d), hn::Zero(d), hn::Zero(d), hn::Zero(d)};
  std::size_t i = 0;
  for (; i + 4 * kLanes <= size; i += 4 * kLanes) {
    prefetch<4>(x + i);
    for (std::size_t j = 0; j < 4; ++j) {
      const VecF32 v = hn::Sub(hn::LoadU(d, x + i + j * kLanes), maximum);
      const VecF32 e = exp_of_negative<kStore>(v);
      if constexpr (kStore) hn::StoreU(e, d, out + i + j * kLanes);
      sum[j] = hn::Add(sum[j], e);
    }
  }
  for (; i < size; i += kLanes) {
    const std::size_t rest = size - i < kLanes ? size - i : kLanes;
    const VecF32 v = hn::Sub(load_first(x + i, rest), maximum);
    const VecF32 e = exp_of_negative<kStore>(v);
    if constexpr (kStore) store_first(e, out + i, rest);
    sum[0] = hn::Add(sum[0], hn::IfThenElseZero(hn::FirstN(d, rest), e));
  }
  return sum_of_lanes(hn::Add(hn::Add(sum[0], sum[1]), hn::Add(sum[2], sum[3])));
}

template <bool kStore>
HWY_INLINE double sum_exp(const float* x, std::size_t size, float top, float* out) {
  double total = 0.0;
  for (std::size_t begin = 0; begin < size; begin += kBlock) {
    const std::size_t count = size - begin < kBlock ? size - begin : kBlock;
    total += sum_block<kStore>(x + begin, count, top, kStore ? out + begin : nullptr);
  }
  return total;
}

template <bool kStream>
HWY_INLINE void two_pass(std::span<const float> x, std::span<float> out) {
  const ExtendedSum sum = sum_extended(x.data(), out.size()).normalized();
  const VecF32 inverse = splat(1.0f / sum.mantissa);
  const VecF32 exponent = splat(sum.exponent);
  map_row<kStream>(x.data(), out.data(), out.size(), [inverse, exponent](VecF32 v) {
    const Extended e = extended(v);
    return term(hn::Mul(e.mantissa, inverse), hn::Sub(e.exponent, exponent));
  });
}

template <bool kStream>
HWY_INLINE void reload(std::span<const float> x, std::span<float> out) {
  const float top = max_of_row(x.data(), out.size());
  const double sum = sum_exp<true>(x.data(), out.size(), top, out.data());
  const VecF32 inverse = splat(static_cast<float>(1.0 / sum));
  map_row<kStream>(out.data(), out.data(), out.size(),
                   [inverse](VecF32 v) { return hn::Mul(v, inverse); });
}

template <bool kStream>
HWY_INLINE void recompute(std::span<const float> x, std::span<float> out) {
  const float top = max_of_row(x.data(), out.size());
  const double sum = sum_exp<false>(x.data(), out.size(), top, nullptr);
  const VecF32 inverse = splat(static_cast<float>(1.0 / sum));
  const VecF32 maximum = splat(top);
  map_row<kStream>(x.data(), out.data(), out.size(), [inverse, maximum](VecF32 v) {
    return hn::Mul(exp_of_negative<true>(hn::Sub(v, maximum)), inverse);
  });
}

}  // namespace

void softmax_two_pass(std::span<const float> x, std::span<float> out, bool stream) {
  stream ? two_pass<true>(x, out) : two_pass<false>(x, out);
}

void softmax_three_pass_reload(std::span<const float> x, std::span<float> out, bool stream) {
  stream ? reload<true>(x, out) : reload<false>(x, out);
}

void softmax_three_pass_recompute(std::span<const float> x, std::span<float> out, bool stream) {
  stream ? recompute<true>(x, out) : recompute<false>(x, out);
}

void softmax(std::span<const float> x, std::span<float> out, std::size_t cache_bytes) {
  const std::size_t bytes = x.data() == out.data() ? out.size_bytes() : 2 * out.size_bytes();
  if (bytes <= cache_bytes) {
    reload<false>(x, out);
  } else if (bytes <= kStreamBeyond * cache_bytes) {
    two_pass<false>(x, out);
  } else {
    two_pass<true>(x, out);
  }
}

ExtendedSum extended_sum(std::span<const float> x) {
  return sum_extended(x.data(), x.size()).normalized();
}

double log_sum_exp_one_pass(std::span<const float> x) {
  const Total total = sum_extended(x.data(), x.size());
  return std::log(total.mantissa) + total.exponent * kLn2;
}

double log_sum_exp_two_read(std::span<const float> x) {
  const float top = max_of_row(x.data(), x.size());
  if (!(top > -HUGE_VALF)) return top;
  return std::log(sum_exp<false>(x.data(), x.size(), top, nullptr)) + static_cast<double>(top);
}

}  // namespace hone::kernels::HONE_ISA_NAMESPACE

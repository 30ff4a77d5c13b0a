// exp, tanh and the normal distribution on vectors, and e^x as mantissa and unbounded exponent, for
// every family.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/isa/vocabulary.h"

#if defined(HONE_ISA_AVX512)
#include <immintrin.h>
#endif

namespace hone::kernels::HONE_ISA_NAMESPACE {

HWY_INLINE VecF32 splat(float value) { return hn::Set(F32(), value); }

// a * b + c with one rounding. Without an FMA instruction through double: the product is exact
// there, so that the reductions below keep their accuracy.
HWY_INLINE VecF32 fused(VecF32 a, VecF32 b, VecF32 c) {
#if defined(HONE_ISA_SCALAR)
  return VecF32(static_cast<float>(static_cast<double>(a.raw) * b.raw + c.raw));
#else
  return hn::MulAdd(a, b, c);
#endif
}

// The larger and the smaller of both, where a NaN in x comes through (of Highway's Max and Min that
// holds in this order of operands for vectors, but not for its scalar target).
HWY_INLINE VecF32 at_least(VecF32 x, float limit) {
#if defined(HONE_ISA_SCALAR)
  return VecF32(x.raw < limit ? limit : x.raw);
#else
  return hn::Max(splat(limit), x);
#endif
}

HWY_INLINE VecF32 at_most(VecF32 x, float limit) {
#if defined(HONE_ISA_SCALAR)
  return VecF32(x.raw > limit ? limit : x.raw);
#else
  return hn::Min(splat(limit), x);
#endif
}

// 1.5 * 2^23: an f32 beside it has no fraction bits, so adding rounds to nearest, ties to even.
inline constexpr float kRoundMagic = 0x1.8p23f;

// Nearest integer, ties to even, the same on every instruction set; |v| < 2^22.
HWY_INLINE VecF32 round_even(VecF32 v) {
  const VecF32 magic = splat(kRoundMagic);
  return hn::Sub(hn::Add(v, magic), magic);
}

// v * 2^n for an integer n in [-127, 128]; -127 gives 0, 128 infinity (v not 0).
HWY_INLINE VecF32 scale_by_power(VecF32 v, VecF32 n) {
#if defined(HONE_ISA_AVX512)
  return VecF32{_mm512_scalef_ps(v.raw, n.raw)};
#else
  // n + 127 in the low bits of the sum, moved into the exponent's place.
  const VecF32 biased = hn::Add(n, splat(0x1.8000FEp23f));
  const auto power = hn::ShiftLeft<23>(hn::BitCast(U32(), biased));
  return hn::Mul(v, hn::BitCast(F32(), power));
#endif
}

// v * 2^n for an integer n <= 0 of any size; 0 below 2^-126 (AVX-512: below 2^-149).
HWY_INLINE VecF32 scale_down(VecF32 v, VecF32 n) {
#if defined(HONE_ISA_AVX512)
  return VecF32{_mm512_scalef_ps(v.raw, n.raw)};
#else
  return scale_by_power(v, at_least(n, -127.0f));
#endif
}

// e^t for |t| <= ln(2) / 2, relative error below 2^-23 with its rounding: the degree 5 polynomial
// of "Two-Pass Softmax" (Dukhan and Ablavatski, arXiv 2001.04438).
HWY_INLINE VecF32 exp_reduced(VecF32 t) {
  VecF32 p = splat(0x1.0F9F9Cp-7f);
  p = fused(p, t, splat(0x1.573A1Ap-5f));
  p = fused(p, t, splat(0x1.555A80p-3f));
  p = fused(p, t, splat(0x1.FFFDC6p-2f));
  p = fused(p, t, splat(0x1.FFFFF6p-1f));
  return fused(p, t, splat(1.0f));
}

// e^x = mantissa * 2^exponent, mantissa in about [0.70, 1.42], exponent an integer.
struct Extended {
  VecF32 mantissa;
  VecF32 exponent;
};

// Two-Pass Softmax's ExtExp for x <= 2^21 (beyond it the rounding below has no integer to hit).
// Everything below -2^21, -infinity too, counts as -2^21, so that any mask is safe. NaN stays NaN.
HWY_INLINE Extended extended_exp(VecF32 x) {
  x = at_least(x, -0x1p21f);
  const VecF32 magic = splat(kRoundMagic);
  const VecF32 n = hn::Sub(fused(x, splat(0x1.715476p+0f), magic), magic);
  VecF32 t = fused(n, splat(-0x1.62E43p-1f), x);
  t = fused(n, splat(0x1.05C61p-29f), t);
  return {exp_reduced(t), n};
}

// e^x, relative error below 2^-22; 0 below -87.3, infinity above 88.37 (2^127.5). NaN stays NaN.
HWY_INLINE VecF32 exp(VecF32 x) {
  x = at_most(at_least(x, -88.5f), 89.0f);
  const Extended e = extended_exp(x);
#if defined(HONE_ISA_AVX512)
  return scale_by_power(e.mantissa, e.exponent);
#else
  return scale_by_power(e.mantissa, at_least(e.exponent, -127.0f));
#endif
}

// tanh(y), a few units in the last place: an odd polynomial (Chebyshev fit, relative error 1.8e-8)
// up to 0.625, beyond it 1 - 2 / (e^2|y| + 1).
HWY_INLINE VecF32 tanh(VecF32 y) {
  const F32 d;
  const VecF32 magnitude = hn::Abs(y);
  const VecF32 square = hn::Mul(y, y);
  VecF32 p = splat(-0x1.901808p-8f);
  p = fused(p, square, splat(0x1.581FA8p-6f));
  p = fused(p, square, splat(-0x1.B928E0p-5f));
  p = fused(p, square, splat(0x1.110E2Ep-3f));
  p = fused(p, square, splat(-0x1.555552p-2f));
  const VecF32 small = fused(hn::Mul(p, square), y, y);
  const VecF32 e = exp(hn::Add(magnitude, magnitude));
  const VecF32 large = hn::Sub(splat(1.0f), hn::Div(splat(2.0f), hn::Add(e, splat(1.0f))));
  const auto is_small = hn::Lt(magnitude, splat(0.625f));
  const auto sign = hn::BitCast(d, hn::And(hn::BitCast(U32(), y), hn::Set(U32(), 0x80000000u)));
  return hn::IfThenElse(is_small, small, hn::Or(large, sign));
}

// erfc(x / sqrt 2) for x >= 0 (twice the upper tail of the normal distribution), relative error a
// few 2^-23 down to the smallest normal number: with z = x / sqrt 2, e^(-z^2) * P(s) / (1 + 2 z)
// where s = (z - 2) / (z + 2), after Shepherd and Laframboise ("Chebyshev approximation of (1 + 2x)
// exp(x^2) erfc x", 1981); P fitted on z in [0, 10] to 1.6e-8. The exponential's argument comes
// from x itself: the rounding of z would be magnified z^2 times.
HWY_INLINE VecF32 normal_tails(VecF32 x) {
  x = at_most(x, 14.0f);  // the exponential is 0 there
  const VecF32 z = hn::Mul(x, splat(0.70710678f));
  const VecF32 s = hn::Div(hn::Sub(z, splat(2.0f)), hn::Add(z, splat(2.0f)));
  VecF32 p = splat(-0x1.ADFC26p-12f);
  p = fused(p, s, splat(-0x1.45B402p-10f));
  p = fused(p, s, splat(0x1.5A2FD0p-10f));
  p = fused(p, s, splat(0x1.1B3C6Cp-7f));
  p = fused(p, s, splat(-0x1.082862p-7f));
  p = fused(p, s, splat(-0x1.BC125Ap-5f));
  p = fused(p, s, splat(0x1.4FFC52p-3f));
  p = fused(p, s, splat(-0x1.540818p-3f));
  p = fused(p, s, splat(-0x1.7BF618p-4f));
  p = fused(p, s, splat(0x1.46E80Ep+0f));
  // x^2 / 2 = square + rest exactly.
  const VecF32 half = hn::Mul(x, splat(0.5f));
  const VecF32 square = hn::Mul(half, x);
  const VecF32 rest = fused(half, x, hn::Neg(square));
  const VecF32 e = exp(hn::Neg(square));
  const VecF32 corrected = fused(e, hn::Neg(rest), e);
  return hn::Div(hn::Mul(corrected, p), fused(z, splat(2.0f), splat(1.0f)));
}

}  // namespace hone::kernels::HONE_ISA_NAMESPACE

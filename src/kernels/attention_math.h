// Vector 2^x and tanh for attention; a part of attention.inl, after an isa header.
// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace hone::kernels::HONE_ISA_NAMESPACE {
namespace {

// 2^x for x <= 127; exactly 1 at 0, 0 below -100 (so that no product is ever subnormal for the
// sake of a term too small to count). Relative error below 2e-7: the minimax polynomial of
// degree 5 for 2^f on |f| <= 1/2 with its constant fixed to 1 has 9.2e-8, rounding the rest.
HWY_INLINE VecF32 exp2_or_zero(VecF32 x) {
  const F32 d;
#if defined(HONE_ISA_AVX512)
  const VecF32 whole =
      VecF32{_mm512_roundscale_ps(x.raw, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
#else
  const auto negligible = hn::Lt(x, hn::Set(d, -100.0F));
  x = hn::IfThenElse(negligible, hn::Set(d, -100.0F), x);
  const VecF32 whole = hn::Round(x);
#endif
  const VecF32 f = hn::Sub(x, whole);
  VecF32 p = hn::Set(d, 0x1.5bba14p-10F);
  p = hn::MulAdd(p, f, hn::Set(d, 0x1.3cea88p-7F));
  p = hn::MulAdd(p, f, hn::Set(d, 0x1.c6b752p-5F));
  p = hn::MulAdd(p, f, hn::Set(d, 0x1.ebf9bcp-3F));
  p = hn::MulAdd(p, f, hn::Set(d, 0x1.62e42ap-1F));
  p = hn::MulAdd(p, f, hn::Set(d, 1.0F));
#if defined(HONE_ISA_AVX512)
  const __mmask16 counts = _mm512_cmp_ps_mask(x.raw, _mm512_set1_ps(-100.0F), _CMP_NLT_UQ);
  return VecF32{_mm512_maskz_scalef_ps(counts, p.raw, whole.raw)};
#else
  const I32 di;
  const auto exponent = hn::ShiftLeft<23>(hn::Add(hn::ConvertTo(di, whole), hn::Set(di, 127)));
  return hn::IfThenZeroElse(negligible, hn::Mul(p, hn::BitCast(d, exponent)));
#endif
}

// Relative error below 4e-7. Cephes' tanhf: an odd polynomial below 0.625, else 1 - 2/(e^2x + 1).
HWY_INLINE VecF32 tanh_of(VecF32 x) {
  const F32 d;
  const VecF32 magnitude = hn::Abs(x);
  const VecF32 z = hn::Mul(x, x);
  VecF32 near = hn::Set(d, -5.70498872745e-3F);
  near = hn::MulAdd(near, z, hn::Set(d, 2.06390887954e-2F));
  near = hn::MulAdd(near, z, hn::Set(d, -5.37397155531e-2F));
  near = hn::MulAdd(near, z, hn::Set(d, 1.33314422036e-1F));
  near = hn::MulAdd(near, z, hn::Set(d, -3.33332819422e-1F));
  near = hn::MulAdd(hn::Mul(near, z), magnitude, magnitude);
  // tanh is 1 in f32 beyond 9.01; 20 keeps 2^x finite.
  const VecF32 twice_log2e = hn::Set(d, 2.8853900817779268F);
  const VecF32 power = exp2_or_zero(hn::Mul(hn::Min(magnitude, hn::Set(d, 20.0F)), twice_log2e));
  const VecF32 one = hn::Set(d, 1.0F);
  const VecF32 far = hn::Sub(one, hn::Div(hn::Set(d, 2.0F), hn::Add(power, one)));
  const VecF32 result = hn::IfThenElse(hn::Lt(magnitude, hn::Set(d, 0.625F)), near, far);
  return hn::CopySign(result, x);
}

}  // namespace
}  // namespace hone::kernels::HONE_ISA_NAMESPACE

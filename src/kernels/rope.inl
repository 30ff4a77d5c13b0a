// Rotary position embedding of one head (RoFormer, arXiv 2104.09864).
// SPDX-License-Identifier: Apache-2.0

namespace hone::kernels::HONE_ISA_NAMESPACE {
namespace {

// (a, b) rotated by the angle: (a cos - b sin, b cos + a sin).
HWY_INLINE void rotate(VecF32& a, VecF32& b, VecF32 cosine, VecF32 sine) {
  const VecF32 first = hn::NegMulAdd(b, sine, hn::Mul(a, cosine));
  b = hn::MulAdd(a, sine, hn::Mul(b, cosine));
  a = first;
}

// Pairs (i, i + pairs): the halves of the rotated part.
HWY_INLINE void rotate_halves(float* head, const float* cosines, const float* sines,
                              std::size_t pairs) {
  const F32 d;
  std::size_t i = 0;
  for (; i + kLanes <= pairs; i += kLanes) {
    VecF32 a = hn::LoadU(d, head + i);
    VecF32 b = hn::LoadU(d, head + pairs + i);
    rotate(a, b, hn::LoadU(d, cosines + i), hn::LoadU(d, sines + i));
    hn::StoreU(a, d, head + i);
    hn::StoreU(b, d, head + pairs + i);
  }
  if (i < pairs) {
    const std::size_t rest = pairs - i;
    VecF32 a = load_first(head + i, rest);
    VecF32 b = load_first(head + pairs + i, rest);
    rotate(a, b, load_first(cosines + i, rest), load_first(sines + i, rest));
    store_first(a, head + i, rest);
    store_first(b, head + pairs + i, rest);
  }
}

// Pairs (2 i, 2 i + 1).
HWY_INLINE void rotate_neighbours(float* head, const float* cosines, const float* sines,
                                  std::size_t pairs) {
  std::size_t i = 0;
#if !defined(HONE_ISA_SCALAR)
  const F32 d;
  for (; i + kLanes <= pairs; i += kLanes) {
    VecF32 a, b;
    hn::LoadInterleaved2(d, head + 2 * i, a, b);
    rotate(a, b, hn::LoadU(d, cosines + i), hn::LoadU(d, sines + i));
    hn::StoreInterleaved2(a, b, d, head + 2 * i);
  }
#endif
  for (; i < pairs; ++i) {
    const float a = head[2 * i];
    const float b = head[2 * i + 1];
    head[2 * i] = a * cosines[i] - b * sines[i];
    head[2 * i + 1] = b * cosines[i] + a * sines[i];
  }
}

}  // namespace

void rope(std::span<float> head, std::span<const float> cosines, std::span<const float> sines,
          bool interleaved) {
  if (interleaved) {
    rotate_neighbours(head.data(), cosines.data(), sines.data(), cosines.size());
  } else {
    rotate_halves(head.data(), cosines.data(), sines.data(), cosines.size());
  }
}

}  // namespace hone::kernels::HONE_ISA_NAMESPACE

// Sums, products and multiples of rows, element by element.
// SPDX-License-Identifier: Apache-2.0

namespace hone::kernels::HONE_ISA_NAMESPACE {
namespace {

// out[i] = op(a[i], b[i]); the rest that fills no vector goes through masked loads and stores.
template <typename Op>
HWY_INLINE void binary(std::span<const float> a, std::span<const float> b, std::span<float> out,
                       Op op) {
  const F32 d;
  const std::size_t size = out.size();
  std::size_t i = 0;
  for (; i + kLanes <= size; i += kLanes) {
    hn::StoreU(op(hn::LoadU(d, a.data() + i), hn::LoadU(d, b.data() + i)), d, out.data() + i);
  }
  if (i < size) {
    const std::size_t rest = size - i;
    store_first(op(load_first(a.data() + i, rest), load_first(b.data() + i, rest)), out.data() + i,
                rest);
  }
}

}  // namespace

void add(std::span<const float> a, std::span<const float> b, std::span<float> out) {
  binary(a, b, out, [](VecF32 x, VecF32 y) { return hn::Add(x, y); });
}

void multiply(std::span<const float> a, std::span<const float> b, std::span<float> out) {
  binary(a, b, out, [](VecF32 x, VecF32 y) { return hn::Mul(x, y); });
}

void scale(std::span<const float> a, float s, std::span<float> out) {
  const VecF32 factor = hn::Set(F32(), s);
  binary(a, a, out, [factor](VecF32 x, VecF32) { return hn::Mul(x, factor); });
}

void axpy(float a, std::span<const float> x, std::span<float> y) {
  const VecF32 factor = hn::Set(F32(), a);
  binary(x, y, y, [factor](VecF32 u, VecF32 v) { return hn::MulAdd(factor, u, v); });
}

}  // namespace hone::kernels::HONE_ISA_NAMESPACE

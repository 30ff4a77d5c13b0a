// Normalization of one row: root mean square, and mean with variance.
// SPDX-License-Identifier: Apache-2.0
#include "kernels/isa/math.h"
#include "kernels/isa/row.h"

namespace hone::kernels::HONE_ISA_NAMESPACE {

void rms_norm(std::span<const float> x, std::span<const float> weight, float epsilon,
              std::span<float> out) {
  const F32 d;
  const std::size_t size = out.size();
  const VecF32 factor = splat(inverse_rms(x.data(), size, epsilon));
  std::size_t i = 0;
  for (; i + kLanes <= size; i += kLanes) {
    const VecF32 scaled = hn::Mul(hn::LoadU(d, x.data() + i), factor);
    hn::StoreU(hn::Mul(scaled, hn::LoadU(d, weight.data() + i)), d, out.data() + i);
  }
  if (i < size) {
    const std::size_t rest = size - i;
    const VecF32 scaled = hn::Mul(load_first(x.data() + i, rest), factor);
    store_first(hn::Mul(scaled, load_first(weight.data() + i, rest)), out.data() + i, rest);
  }
}

void layer_norm(std::span<const float> x, std::span<const float> weight,
                std::span<const float> bias, float epsilon, std::span<float> out) {
  const F32 d;
  const std::size_t size = out.size();
  if (size == 0) return;
  const RowMoments row = moments_of_row(x.data(), size, true, epsilon);
  const VecF32 center = splat(row.mean);
  const VecF32 factor = splat(row.inverse);
  const std::size_t rest = size % kLanes;
  const auto normalize = [center, factor](VecF32 v, VecF32 w, VecF32 b) {
    return hn::MulAdd(hn::Mul(hn::Sub(v, center), factor), w, b);
  };
  std::size_t i = 0;
  for (; i + kLanes <= size; i += kLanes) {
    const VecF32 w = hn::LoadU(d, weight.data() + i);
    const VecF32 b = hn::LoadU(d, bias.data() + i);
    hn::StoreU(normalize(hn::LoadU(d, x.data() + i), w, b), d, out.data() + i);
  }
  if (i < size) {
    const VecF32 w = load_first(weight.data() + i, rest);
    const VecF32 b = load_first(bias.data() + i, rest);
    store_first(normalize(load_first(x.data() + i, rest), w, b), out.data() + i, rest);
  }
}

}  // namespace hone::kernels::HONE_ISA_NAMESPACE

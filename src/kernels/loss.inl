// Cross-entropy of one row of logits, which become its gradient in place.
// SPDX-License-Identifier: Apache-2.0
#include "kernels/isa/math.h"
#include "kernels/isa/row.h"

namespace hone::kernels::HONE_ISA_NAMESPACE {

// activation.inl and softmax.inl of this instruction set.
void tanh_cap(std::span<const float> x, float cap, std::span<float> out);
double log_sum_exp_one_pass(std::span<const float> x);

double cross_entropy_row(std::span<float> logits, std::size_t target, float weight, float cap) {
  const F32 d;
  const bool capped = cap > 0.0F;
  if (capped) tanh_cap(logits, cap, logits);
  const double total = log_sum_exp_one_pass(logits);
  const float wanted = logits[target];
  const VecF32 shift = splat(static_cast<float>(total));
  const VecF32 factor = splat(weight);
  const VecF32 inverse = splat(capped ? 1.0F / cap : 0.0F);
  // d(cap tanh(x / cap)) / dx = 1 - tanh^2; 1 without a cap.
  const auto slope = [&](VecF32 v) {
    const VecF32 bent = hn::Mul(v, inverse);
    return hn::Sub(splat(1.0F), hn::Mul(bent, bent));
  };
  const auto gradient = [&](VecF32 v) {
    const VecF32 probability = hn::Mul(exp(hn::Sub(v, shift)), factor);
    return hn::Mul(probability, slope(v));
  };
  float* at = logits.data();
  std::size_t i = 0;
  for (; i + kLanes <= logits.size(); i += kLanes) {
    hn::StoreU(gradient(hn::LoadU(d, at + i)), d, at + i);
  }
  if (const std::size_t rest = logits.size() - i; rest > 0) {
    store_first(gradient(load_first(at + i, rest)), at + i, rest);
  }
  at[target] -= weight * hn::GetLane(slope(splat(wanted)));
  return static_cast<double>(weight) * (total - static_cast<double>(wanted));
}

}  // namespace hone::kernels::HONE_ISA_NAMESPACE

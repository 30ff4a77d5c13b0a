// Reductions over one row that several families share.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/isa/vocabulary.h"
#include "kernels/norm.h"

namespace hone::kernels::HONE_ISA_NAMESPACE {

HWY_INLINE float sum_of_lanes(VecF32 v) { return hn::GetLane(hn::SumOfLanes(F32(), v)); }
HWY_INLINE float max_of_lanes(VecF32 v) { return hn::GetLane(hn::MaxOfLanes(F32(), v)); }

// Folds a row into four running vectors by sum = op(x, sum) and adds their lanes. The lanes behind
// the row's end are 0, so op must leave a sum as it is for x = 0.
template <typename Op>
HWY_INLINE float fold_sum(const float* x, std::size_t size, Op op) {
  const F32 d;
  VecF32 sum0 = hn::Zero(d), sum1 = sum0, sum2 = sum0, sum3 = sum0;
  std::size_t i = 0;
  for (; i + 4 * kLanes <= size; i += 4 * kLanes) {
    sum0 = op(hn::LoadU(d, x + i), sum0);
    sum1 = op(hn::LoadU(d, x + i + kLanes), sum1);
    sum2 = op(hn::LoadU(d, x + i + 2 * kLanes), sum2);
    sum3 = op(hn::LoadU(d, x + i + 3 * kLanes), sum3);
  }
  for (; i + kLanes <= size; i += kLanes) sum0 = op(hn::LoadU(d, x + i), sum0);
  if (i < size) sum1 = op(load_first(x + i, size - i), sum1);
  return sum_of_lanes(hn::Add(hn::Add(sum0, sum1), hn::Add(sum2, sum3)));
}

// 1 / sqrt(mean(x^2) + epsilon)
HWY_INLINE float inverse_rms(const float* x, std::size_t size, float epsilon) {
  if (size == 0) return 0.0f;
  const float squares =
      fold_sum(x, size, [](VecF32 v, VecF32 sum) { return hn::MulAdd(v, v, sum); });
  return 1.0f / __builtin_sqrtf(squares / static_cast<float>(size) + epsilon);
}

HWY_INLINE RowMoments moments_of_row(const float* x, std::size_t size, bool centered,
                                     float epsilon) {
  if (!centered || size == 0) return {0.0f, inverse_rms(x, size, epsilon)};
  const float count = static_cast<float>(size);
  const float mean =
      fold_sum(x, size, [](VecF32 v, VecF32 sum) { return hn::Add(sum, v); }) / count;
  // The mean is subtracted before squaring: no cancellation.
  const VecF32 center = hn::Set(F32(), mean);
  const std::size_t rest = size % kLanes;
  float squares = fold_sum(x, size - rest, [center](VecF32 v, VecF32 sum) {
    const VecF32 difference = hn::Sub(v, center);
    return hn::MulAdd(difference, difference, sum);
  });
  for (std::size_t i = size - rest; i < size; ++i) {
    squares += (x[i] - mean) * (x[i] - mean);
  }
  return {mean, 1.0f / __builtin_sqrtf(squares / count + epsilon)};
}

// -infinity for an empty row. Max(x, top) with x first drops a NaN in x.
HWY_INLINE float max_of_row(const float* x, std::size_t size) {
  const F32 d;
  const VecF32 lowest = hn::Set(d, -HUGE_VALF);
  VecF32 top[4] = {lowest, lowest, lowest, lowest};
  std::size_t i = 0;
  for (; i + 4 * kLanes <= size; i += 4 * kLanes) {
    for (std::size_t j = 0; j < 4; ++j) {
      top[j] = hn::Max(hn::LoadU(d, x + i + j * kLanes), top[j]);
    }
  }
  for (; i + kLanes <= size; i += kLanes) top[0] = hn::Max(hn::LoadU(d, x + i), top[0]);
  if (i < size) {
    const auto inside = hn::FirstN(d, size - i);
    top[1] = hn::Max(hn::IfThenElse(inside, load_first(x + i, size - i), top[1]), top[1]);
  }
  return max_of_lanes(hn::Max(hn::Max(top[0], top[1]), hn::Max(top[2], top[3])));
}

}  // namespace hone::kernels::HONE_ISA_NAMESPACE

// The largest element of a row, and where it is.
// SPDX-License-Identifier: Apache-2.0
#include "kernels/isa/math.h"
#include "kernels/isa/row.h"

namespace hone::kernels::HONE_ISA_NAMESPACE {

float max_row(std::span<const float> x) { return max_of_row(x.data(), x.size()); }

std::size_t argmax_row(std::span<const float> x) {
  const F32 d;
  const I32 di;
  const std::size_t size = x.size();
  const std::size_t whole = size - size % kLanes;
  VecF32 top = splat(-HUGE_VALF);
  VecI32 where = hn::Set(di, -1);
  VecI32 index = hn::Iota(di, 0);
  const VecI32 step = hn::Set(di, static_cast<std::int32_t>(kLanes));
  for (std::size_t i = 0; i < whole; i += kLanes) {
    const VecF32 value = hn::LoadU(d, x.data() + i);
    const auto greater = hn::Gt(value, top);
    top = hn::IfThenElse(greater, value, top);
    where = hn::IfThenElse(hn::RebindMask(di, greater), index, where);
    index = hn::Add(index, step);
  }
  float best = -HUGE_VALF;
  std::size_t best_index = 0;
  float values[kLanes];
  std::int32_t indices[kLanes];
  hn::StoreU(top, d, values);
  hn::StoreU(where, di, indices);
  for (std::size_t lane = 0; lane < kLanes; ++lane) {
    if (indices[lane] < 0) continue;
    const auto candidate = static_cast<std::size_t>(indices[lane]);
    if (values[lane] > best || (values[lane] == best && candidate < best_index)) {
      best = values[lane];
      best_index = candidate;
    }
  }
  for (std::size_t i = whole; i < size; ++i) {
    if (x.data()[i] > best) {
      best = x.data()[i];
      best_index = i;
    }
  }
  return best_index;
}

}  // namespace hone::kernels::HONE_ISA_NAMESPACE

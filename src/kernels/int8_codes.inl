// Numbers to integer codes with one factor for a row, a column or all: code = round(x * inverse).
// SPDX-License-Identifier: Apache-2.0
#include "kernels/isa/math.h"
#include "kernels/isa/row.h"

namespace hone::kernels::HONE_ISA_NAMESPACE {
namespace {

// f(i, load): each vector of a row, load(p) reads p[i …] with zeros behind the row's end.
template <typename Function>
HWY_INLINE void each_part(std::size_t size, Function f) {
  const F32 d;
  std::size_t i = 0;
  for (; i + kLanes <= size; i += kLanes) {
    f(i, kLanes, [&](const float* from) { return hn::LoadU(d, from + i); });
  }
  if (i < size) f(i, size - i, [&](const float* from) { return load_first(from + i, size - i); });
}

HWY_INLINE void store_codes(VecF32 rounded, std::int8_t* to, std::size_t count) {
  const hn::Rebind<std::int8_t, F32> d8;
  const auto codes = hn::DemoteTo(d8, hn::ConvertTo(I32(), rounded));
  if (count == kLanes) {
    hn::StoreU(codes, d8, to);
    return;
  }
  std::int8_t buffer[kLanes];
  hn::StoreU(codes, d8, buffer);
  for (std::size_t j = 0; j < count; ++j) to[j] = buffer[j];
}

}  // namespace

float largest_magnitude(std::span<const float> x) {
  VecF32 most = splat(0.0f);
  each_part(x.size(), [&](std::size_t, std::size_t, auto load)
                          HWY_ATTR { most = hn::Max(most, hn::Abs(load(x.data()))); });
  return max_of_lanes(most);
}

void largest_magnitudes(std::span<const float> x, std::span<float> most) {
  each_part(x.size(), [&](std::size_t i, std::size_t count, auto load) HWY_ATTR {
    const VecF32 larger = hn::Max(load(most.data()), hn::Abs(load(x.data())));
    if (count == kLanes) {
      hn::StoreU(larger, F32(), most.data() + i);
    } else {
      store_first(larger, most.data() + i, count);
    }
  });
}

void int8_codes(std::span<const float> x, float inverse, std::span<std::int8_t> codes) {
  const VecF32 factor = splat(inverse);
  each_part(x.size(), [&](std::size_t i, std::size_t count, auto load) HWY_ATTR {
    store_codes(round_even(hn::Mul(load(x.data()), factor)), codes.data() + i, count);
  });
}

void int8_codes_each(std::span<const float> x, std::span<const float> inverses,
                     std::span<std::int8_t> codes) {
  each_part(x.size(), [&](std::size_t i, std::size_t count, auto load) HWY_ATTR {
    store_codes(round_even(hn::Mul(load(x.data()), load(inverses.data()))), codes.data() + i,
                count);
  });
}

void round_to_grid(std::span<const float> x, float inverse, float scale, std::span<float> out) {
  const VecF32 factor = splat(inverse);
  const VecF32 back = splat(scale);
  each_part(x.size(), [&](std::size_t i, std::size_t count, auto load) HWY_ATTR {
    const VecF32 value = hn::Mul(round_even(hn::Mul(load(x.data()), factor)), back);
    if (count == kLanes) {
      hn::StoreU(value, F32(), out.data() + i);
    } else {
      store_first(value, out.data() + i, count);
    }
  });
}

}  // namespace hone::kernels::HONE_ISA_NAMESPACE

// Stores one token's key and value in a page of the cache.
// SPDX-License-Identifier: Apache-2.0
#include "base/half.h"
#include "kernels/attention.h"

namespace hone::kernels::HONE_ISA_NAMESPACE {
namespace {

// head_size is a multiple of 8, vectors may have 16 lanes.
using Part = hn::CappedTag<float, 8>;
inline constexpr std::size_t kPartLanes = hn::MaxLanes(Part());

HWY_INLINE void encode(const float* from, float, float* to) {
  const Part part;
  hn::StoreU(hn::LoadU(part, from), part, to);
}

HWY_INLINE void encode(const float* from, float, hwy::float16_t* to) {
  const Part part;
  const auto limit = hn::Set(part, 65504.0F);  // the largest finite half
  const auto value = hn::Min(hn::Max(hn::LoadU(part, from), hn::Neg(limit)), limit);
#if defined(HONE_ISA_SCALAR)
  to->bits = f32_to_f16(hn::GetLane(value));  // Highway's scalar DemoteTo truncates
#else
  const hn::Rebind<hwy::float16_t, Part> half;
  hn::StoreU(hn::DemoteTo(half, value), half, to);
#endif
}

HWY_INLINE void encode(const float* from, float inverse, std::int8_t* to) {
  const Part part;
  const hn::Rebind<std::int8_t, Part> byte;
  const auto level = hn::NearestInt(hn::Mul(hn::LoadU(part, from), hn::Set(part, inverse)));
  hn::StoreU(hn::DemoteTo(byte, level), byte, to);
}

HWY_INLINE float largest_magnitude(const float* from, std::size_t size) {
  const Part part;
  auto largest = hn::Zero(part);
  for (std::size_t i = 0; i < size; i += kPartLanes) {
    largest = hn::Max(largest, hn::Abs(hn::LoadU(part, from + i)));
  }
  return hn::GetLane(hn::MaxOfLanes(part, largest));
}

template <class Element>
HWY_INLINE void store_head(const float* from, std::size_t head_size, std::size_t token, bool is_key,
                           std::byte* block) {
  Element* elements = reinterpret_cast<Element*>(block);
  float inverse = 0.0F;
  if constexpr (sizeof(Element) == 1) {
    const float scale = largest_magnitude(from, head_size) / 127.0F;
    inverse = scale > 1e-37F ? 1.0F / scale : 0.0F;  // finite
    reinterpret_cast<float*>(elements + kPageTokens * head_size)[token] = scale;
  }
  for (std::size_t d = 0; d < head_size; d += kPartLanes) {
    if (is_key) {
      alignas(32) Element encoded[kPartLanes];
      encode(from + d, inverse, encoded);
      Element* column = elements + d * kPageTokens + token;
      for (std::size_t i = 0; i < kPartLanes; ++i) column[i * kPageTokens] = encoded[i];
    } else {
      encode(from + d, inverse, elements + token * head_size + d);
    }
  }
}

template <class Element>
HWY_INLINE void store_token(const CacheLayout& layout, std::byte* keys, std::byte* values,
                            std::size_t token, const float* key, const float* value) {
  const std::size_t head_size = static_cast<std::size_t>(layout.head_size);
  const std::size_t block = layout.block_bytes();
  for (std::size_t head = 0; head < static_cast<std::size_t>(layout.kv_heads); ++head) {
    const std::size_t at = head * block;
    store_head<Element>(key + head * head_size, head_size, token, true, keys + at);
    store_head<Element>(value + head * head_size, head_size, token, false, values + at);
  }
}

}  // namespace

void paged_store(const CacheLayout& layout, std::span<std::byte> key_page,
                 std::span<std::byte> value_page, int token_in_page, std::span<const float> key,
                 std::span<const float> value) {
  const auto store = [&](auto element) HWY_ATTR {
    store_token<decltype(element)>(layout, key_page.data(), value_page.data(),
                                   static_cast<std::size_t>(token_in_page), key.data(),
                                   value.data());
  };
  switch (layout.kind) {
    case CacheKind::kF16: return store(hwy::float16_t());
    case CacheKind::kI8: return store(std::int8_t());
    case CacheKind::kF32: return store(float());
  }
}

}  // namespace hone::kernels::HONE_ISA_NAMESPACE

// SPDX-License-Identifier: Apache-2.0
#include "quant/scales.h"

#include <algorithm>
#include <cassert>
#include <cstring>

#include "base/half.h"
#include "quant/blocks.h"

namespace hone::quant {
namespace {

template <typename Block>
constexpr ScalePlaces places_with_minimum() {
  return {offsetof(Block, scale), offsetof(Block, minimum)};
}
template <typename Block>
constexpr ScalePlaces places_without() {
  return {offsetof(Block, scale), std::nullopt};
}

float half_at(const std::byte* at) {
  std::uint16_t bits;
  std::memcpy(&bits, at, sizeof bits);
  return f16_to_f32(bits);
}

void multiply_half(std::byte* at, float factor) {
  const std::uint16_t bits = f32_to_f16((1 + factor) * half_at(at));
  std::memcpy(at, &bits, sizeof bits);
}

std::size_t block_bytes(DType dtype) { return static_cast<std::size_t>(dtype_info(dtype).bytes); }

}  // namespace

std::optional<ScalePlaces> scale_places(DType dtype) {
  switch (dtype) {
    case DType::kQ4_0: return places_without<BlockQ4_0>();
    case DType::kQ4_1: return places_with_minimum<BlockQ4_1>();
    case DType::kQ5_0: return places_without<BlockQ5_0>();
    case DType::kQ5_1: return places_with_minimum<BlockQ5_1>();
    case DType::kQ8_0: return places_without<BlockQ8_0>();
    case DType::kIQ4_NL: return places_without<BlockIQ4_NL>();
    case DType::kQ2_K: return places_with_minimum<BlockQ2_K>();
    case DType::kQ3_K: return places_without<BlockQ3_K>();
    case DType::kQ4_K: return places_with_minimum<BlockQ4_K>();
    case DType::kQ5_K: return places_with_minimum<BlockQ5_K>();
    case DType::kQ6_K: return places_without<BlockQ6_K>();
    default: return std::nullopt;
  }
}

void multiply_scales(DType dtype, ScalePart part, std::span<const std::byte> blocks,
                     std::span<const float> factors, std::span<std::byte> out) {
  const auto places = scale_places(dtype);
  const std::size_t bytes = block_bytes(dtype);
  assert(places && blocks.size() == factors.size() * bytes && out.size() == blocks.size());
  std::ranges::copy(blocks, out.begin());
  for (std::size_t i = 0; i < factors.size(); ++i) {
    if (factors[i] == 0) continue;
    std::byte* block = out.data() + i * bytes;
    if (part != ScalePart::kMinimum) multiply_half(block + places->scale, factors[i]);
    if (part != ScalePart::kScale && places->minimum) {
      multiply_half(block + *places->minimum, factors[i]);
    }
  }
}

void read_minimums(DType dtype, std::span<const std::byte> blocks, std::span<float> out) {
  const auto places = scale_places(dtype);
  const std::size_t bytes = block_bytes(dtype);
  assert(places && blocks.size() == out.size() * bytes);
  for (std::size_t i = 0; i < out.size(); ++i) {
    out[i] = places->minimum ? half_at(blocks.data() + i * bytes + *places->minimum) : 0.0F;
  }
}

void clear_scales(DType dtype, std::span<std::byte> blocks) {
  const auto places = scale_places(dtype);
  if (!places) return;
  const std::size_t bytes = block_bytes(dtype);
  for (std::size_t at = 0; at + bytes <= blocks.size(); at += bytes) {
    std::memset(blocks.data() + at + places->scale, 0, 2);
    if (places->minimum) std::memset(blocks.data() + at + *places->minimum, 0, 2);
  }
}

}  // namespace hone::quant

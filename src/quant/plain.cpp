// f32, f16 and bf16: plain numbers, little endian.
// SPDX-License-Identifier: Apache-2.0
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "base/half.h"
#include "quant/members.h"

namespace hone::quant {
namespace {

static_assert(std::endian::native == std::endian::little);

template <typename Convert>
void decode_halves(std::span<const std::byte> blocks, std::span<float> out, Convert convert) {
  for (std::size_t i = 0; i < out.size(); ++i) {
    std::uint16_t bits;
    std::memcpy(&bits, blocks.data() + 2 * i, 2);
    out[i] = convert(bits);
  }
}

template <typename Convert>
void encode_halves(std::span<const float> in, std::span<std::byte> blocks, std::uint16_t largest,
                   Convert convert) {
  for (std::size_t i = 0; i < in.size(); ++i) {
    std::uint16_t bits = convert(in[i]);
    // A finite weight stays finite: one infinity would turn every output of its row into NaN.
    if ((bits & 0x7fffu) == largest + 1u && std::isfinite(in[i])) --bits;
    std::memcpy(blocks.data() + 2 * i, &bits, 2);
  }
}

}  // namespace

void decode_f32(std::span<const std::byte> blocks, std::span<float> out) {
  if (!out.empty()) std::memcpy(out.data(), blocks.data(), out.size_bytes());
}
void encode_f32(std::span<const float> in, std::span<const float>, std::span<std::byte> blocks) {
  if (!in.empty()) std::memcpy(blocks.data(), in.data(), in.size_bytes());
}

void decode_f16(std::span<const std::byte> blocks, std::span<float> out) {
  decode_halves(blocks, out, f16_to_f32);
}
void encode_f16(std::span<const float> in, std::span<const float>, std::span<std::byte> blocks) {
  encode_halves(in, blocks, 0x7bff, f32_to_f16);
}

void decode_bf16(std::span<const std::byte> blocks, std::span<float> out) {
  decode_halves(blocks, out, bf16_to_f32);
}
void encode_bf16(std::span<const float> in, std::span<const float>, std::span<std::byte> blocks) {
  encode_halves(in, blocks, 0x7f7f, f32_to_bf16);
}

}  // namespace hone::quant

// The f16 scales of quantized weights: to change them while every code stays.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/dtype.h"

namespace hone::quant {

// What of w = scale * code + minimum is changed (of K formats, what all of a super-block's small
// integers are multiplied by).
enum class ScalePart : std::uint8_t { kBoth, kScale, kMinimum };

// Where a block's f16 numbers lie in it, in bytes; nothing for types that are not block-quantized.
struct ScalePlaces {
  std::size_t scale = 0;
  std::optional<std::size_t> minimum;
};
std::optional<ScalePlaces> scale_places(DType dtype);

// Writes the blocks with (1 + factors[i]) times the f16 scale and minimum of block i, rounded to
// f16; a factor of 0 changes no bit. Sizes are the caller's promise (asserted).
void multiply_scales(DType dtype, ScalePart part, std::span<const std::byte> blocks,
                     std::span<const float> factors, std::span<std::byte> out);

// The minima of the blocks (0 of a type without).
void read_minimums(DType dtype, std::span<const std::byte> blocks, std::span<float> out);

// Blocks with zeros in place of scales and minima: what is left are the codes.
void clear_scales(DType dtype, std::span<std::byte> blocks);

}  // namespace hone::quant

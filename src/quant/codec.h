// One codec a format: blocks to f32 and back, scalar, the reference that every kernel is tested
// with.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "base/dtype.h"
#include "base/status.h"

namespace hone::quant {

// Decoding gives the same bits as the `gguf` package. Encoding is deterministic, never writes
// infinity or NaN for finite input within the range of the format's f16 scale, and saturates beyond
// it.
//
// Sizes are the caller's promise (asserted): `out` and `in` hold a multiple of the format's block
// of weights, `blocks` exactly dtype_bytes(dtype, weights) bytes. Blocks need no alignment. Weights
// are those of whole rows in order, so any run of whole blocks can be given alone.
struct Codec {
  DType dtype;
  void (*decode)(std::span<const std::byte> blocks, std::span<float> out);
  // `importance` is empty, or one non-negative factor a weight: the error that is made small is
  // sum(importance * (decoded - in)^2). Plain formats ignore it.
  void (*encode)(std::span<const float> in, std::span<const float> importance,
                 std::span<std::byte> blocks);
};

std::span<const Codec> codecs();
// nullptr for a type that has no codec (whole numbers, f64).
const Codec* find_codec(DType dtype);

// The same with checks and with room made: errors are kUnsupported (no codec) and kInvalidArgument
// (a size that is not a whole number of blocks).
Result<std::vector<float>> dequantize(DType dtype, std::span<const std::byte> blocks);
Result<std::vector<std::byte>> quantize(DType dtype, std::span<const float> weights,
                                        std::span<const float> importance = {});

}  // namespace hone::quant

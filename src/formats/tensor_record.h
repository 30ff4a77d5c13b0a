// A named tensor inside a mapped file: what every reader of model files gives.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/dtype.h"

namespace hone::formats {

struct TensorRecord {
  std::string name;
  DType dtype = DType::kF32;
  // Outermost first, {rows, columns}: the reverse of GGUF's order. Empty for a scalar.
  std::vector<std::int64_t> shape;
  // Borrowed from the reader's mapping. GGUF aligns it (32 bytes by default, and tensors of a
  // parsed span as the span); safetensors promises no alignment at all.
  std::span<const std::byte> data;
  std::size_t file_offset = 0;  // of data, in bytes from the start of its file
  std::size_t file = 0;         // which of the reader's files

  std::int64_t elements() const {  // readers refuse shapes whose product overflows
    std::int64_t product = 1;
    for (const std::int64_t extent : shape) product *= extent;
    return product;
  }
};

// Bytes of a tensor; nothing if an extent is negative, the product overflows, or the innermost
// extent is not a whole number of blocks.
std::optional<std::int64_t> checked_tensor_bytes(DType dtype, std::span<const std::int64_t> shape);

// Indices of two records of one file that share bytes, in file order.
std::optional<std::pair<std::size_t, std::size_t>> find_overlap(
    std::span<const TensorRecord> tensors);

// "[576, 1536]"
std::string shape_text(std::span<const std::int64_t> shape);
// A name out of an untrusted file, safe to print: short, control and non-ASCII bytes escaped.
std::string printable(std::string_view name);

}  // namespace hone::formats

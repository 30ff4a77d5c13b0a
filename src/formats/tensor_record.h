// A named tensor inside a mapped file: what every reader of model files gives.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
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

}  // namespace hone::formats

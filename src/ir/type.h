// Types of values in a graph: an element type, a concrete shape, and how the elements lie in
// memory.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/dtype.h"

namespace hone::ir {

using Shape = std::vector<std::int64_t>;  // outermost first: (rows, columns)

// How the elements lie in memory. A layout is part of the type, so a kernel can rely on it.
enum class Layout : std::uint8_t {
  kRowMajor,
  kRows16,    // 16 rows of a weight matrix interleaved block by block (kernels/packed.h)
  kInt8Rows,  // activations as int8 codes with a scale and a sum for each 32 columns
  kCache,     // state: the pages of one layer's keys and values; shape (kv_heads, head_size)
};

const char* layout_name(Layout layout);

struct Type {
  DType dtype = DType::kF32;
  Shape shape;
  Layout layout = Layout::kRowMajor;

  bool operator==(const Type&) const = default;
  std::int64_t elements() const;
  std::int64_t rows() const;     // product of all but the last dimension; 1 for a scalar
  std::int64_t columns() const;  // the last dimension; 1 for a scalar
  // Bytes of the elements as they lie in memory; 0 for state, which its owner sizes.
  std::int64_t bytes() const;
  // As MLIR prints it: `tensor<4x576xf32>`, or `!hone.array<q4_1, rows16, 576x1536>`.
  std::string text() const;
};

inline Type tensor_type(Shape shape, DType dtype = DType::kF32) {
  return Type{dtype, std::move(shape), Layout::kRowMajor};
}

}  // namespace hone::ir

// SPDX-License-Identifier: Apache-2.0
#include "ir/type.h"

#include <fmt/format.h>

#include <limits>
#include <span>

namespace hone::ir {

const char* layout_name(Layout layout) {
  switch (layout) {
    case Layout::kRowMajor: return "row_major";
    case Layout::kRows16: return "rows16";
    case Layout::kInt8Rows: return "int8_rows";
    case Layout::kCache: return "cache";
  }
  return "unknown";
}

namespace {

// The largest number instead of an overflow: an attribute may hold any shape.
std::int64_t product_of(std::span<const std::int64_t> extents) {
  std::int64_t product = 1;
  for (const std::int64_t extent : extents) {
    if (__builtin_mul_overflow(product, extent, &product)) {
      return std::numeric_limits<std::int64_t>::max();
    }
  }
  return product;
}

}  // namespace

std::int64_t Type::elements() const { return product_of(shape); }

std::int64_t Type::columns() const { return shape.empty() ? 1 : shape.back(); }

std::int64_t Type::rows() const {
  return shape.empty() ? 1 : product_of(std::span(shape).first(shape.size() - 1));
}

std::int64_t Type::bytes() const {
  switch (layout) {
    case Layout::kRowMajor:
    case Layout::kRows16: return rows() * dtype_bytes(dtype, columns());
    case Layout::kInt8Rows: {
      const std::int64_t blocks = (columns() + 31) / 32;
      return rows() * blocks * (32 + 2 * 4);  // codes, one f32 scale, one f32 sum
    }
    case Layout::kCache: return 0;
  }
  return 0;
}

std::string Type::text() const {
  std::string dimensions;
  for (const std::int64_t extent : shape) dimensions += fmt::format("{}x", extent);
  if (layout == Layout::kRowMajor && !is_block_quantized(dtype)) {
    return fmt::format("tensor<{}{}>", dimensions, dtype_name(dtype));
  }
  if (!dimensions.empty()) dimensions.pop_back();
  return fmt::format("!hone.array<{}, {}, {}>", dtype_name(dtype), layout_name(layout), dimensions);
}

}  // namespace hone::ir

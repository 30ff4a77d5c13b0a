// Element types: plain numbers, and weights quantized in blocks.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace hone {

enum class DType : std::uint8_t {
#define HONE_DTYPE(enumerator, text, weights, bytes, gguf) enumerator,
#include "base/dtype.inc"
#undef HONE_DTYPE
};

struct DTypeInfo {
  DType dtype;
  std::string_view name;   // lower case: "q4_1"
  std::int64_t block;      // weights in one block along the innermost axis; 1 for plain numbers
  std::int64_t bytes;      // bytes of one block
  std::int32_t gguf_type;  // number in GGUF files, -1 if it has none
};

const DTypeInfo& dtype_info(DType dtype);
std::span<const DTypeInfo> all_dtypes();
std::optional<DType> dtype_from_name(std::string_view name);  // any letter case
std::optional<DType> dtype_from_gguf(std::uint32_t gguf_type);

inline std::string_view dtype_name(DType dtype) { return dtype_info(dtype).name; }
inline bool is_block_quantized(DType dtype) { return dtype_info(dtype).block > 1; }

// Bytes of `count` consecutive elements; count must be a multiple of the block.
inline std::int64_t dtype_bytes(DType dtype, std::int64_t count) {
  const DTypeInfo& info = dtype_info(dtype);
  return count / info.block * info.bytes;
}

}  // namespace hone

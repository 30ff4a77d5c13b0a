// Checks that every reader and writer of tensors shares.
// SPDX-License-Identifier: Apache-2.0
#include "formats/tensor_record.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include <fmt/format.h>

namespace hone::formats {

std::optional<std::int64_t> checked_tensor_bytes(DType dtype, std::span<const std::int64_t> shape) {
  const DTypeInfo& info = dtype_info(dtype);
  // Leaves room for the multiplication by the bytes of a block.
  const std::int64_t limit = std::numeric_limits<std::int64_t>::max() / info.bytes;
  std::int64_t product = 1;
  bool empty = false;
  for (const std::int64_t extent : shape) {
    if (extent < 0) return std::nullopt;
    empty = empty || extent == 0;
    const std::int64_t factor = std::max<std::int64_t>(extent, 1);
    if (product > limit / factor) return std::nullopt;
    product *= factor;
  }
  if (empty) return 0;
  const std::int64_t row = shape.empty() ? 1 : shape.back();
  if (row % info.block != 0) return std::nullopt;
  return dtype_bytes(dtype, product);
}

std::string shape_text(std::span<const std::int64_t> shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

std::string printable(std::string_view name) {
  constexpr std::size_t kMost = 80;
  std::string out;
  for (const char letter : name.substr(0, kMost)) {
    const auto byte = static_cast<unsigned char>(letter);
    if (byte < 0x20 || byte > 0x7e) {
      out += fmt::format("\\x{:02x}", byte);
    } else {
      out += letter;
    }
  }
  if (name.size() > kMost) out += fmt::format("… ({} bytes)", name.size());
  return out;
}

std::optional<std::pair<std::size_t, std::size_t>> find_overlap(
    std::span<const TensorRecord> tensors) {
  std::vector<std::size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::erase_if(order, [&](std::size_t i) { return tensors[i].data.empty(); });
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return tensors[a].file_offset < tensors[b].file_offset;
  });
  for (std::size_t i = 1; i < order.size(); ++i) {
    const TensorRecord& before = tensors[order[i - 1]];
    if (before.file_offset + before.data.size() > tensors[order[i]].file_offset) {
      return std::pair{order[i - 1], order[i]};
    }
  }
  return std::nullopt;
}

}  // namespace hone::formats

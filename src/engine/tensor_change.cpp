// SPDX-License-Identifier: Apache-2.0
#include "engine/tensor_change.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "formats/tensor_record.h"
#include "quant/codec.h"

namespace hone::engine {
namespace {

using models::Change;

Error misfit(std::span<const std::int64_t> shape, std::string expected) {
  return Error{ErrorCode::kCorrupt,
               "the tensor's shape does not fit the configuration",
               "",
               formats::shape_text(shape),
               std::move(expected),
               "is config.json that of this model?"};
}

// Rows of each head: (2, D / 2) to (D / 2, 2), or back.
Result<ChangedTensor> permute(DType dtype, std::span<const std::int64_t> shape,
                              std::span<const std::byte> data, std::int64_t heads, bool to_pairs) {
  const std::int64_t rows = shape.empty() ? 0 : shape[0];
  if (heads <= 0 || rows <= 0 || rows % (2 * heads) != 0) {
    return misfit(shape, fmt::format("rows of {} heads of an even size", heads));
  }
  if (shape.size() == 1 && is_block_quantized(dtype)) {
    return Error{ErrorCode::kUnsupported,
                 "a quantized vector cannot be rearranged",
                 "",
                 std::string(dtype_name(dtype)),
                 "a plain type",
                 ""};
  }
  ChangedTensor out{dtype, {shape.begin(), shape.end()}, std::vector<std::byte>(data.size())};
  const std::size_t row_bytes = data.size() / static_cast<std::size_t>(rows);
  const std::int64_t half = rows / heads / 2;
  for (std::int64_t head = 0; head < heads; ++head) {
    for (std::int64_t i = 0; i < half; ++i) {
      for (std::int64_t j = 0; j < 2; ++j) {
        const std::int64_t pair = head * 2 * half + 2 * i + j;
        const std::int64_t split = head * 2 * half + j * half + i;
        const auto from = static_cast<std::size_t>(to_pairs ? split : pair);
        const auto to = static_cast<std::size_t>(to_pairs ? pair : split);
        std::memcpy(out.data.data() + to * row_bytes, data.data() + from * row_bytes, row_bytes);
      }
    }
  }
  return out;
}

Result<ChangedTensor> add(DType dtype, std::span<const std::int64_t> shape,
                          std::span<const std::byte> data, float term) {
  auto values = quant::dequantize(dtype, data);
  if (!values) return values.error();
  for (float& value : *values) value += term;
  ChangedTensor out{DType::kF32, {shape.begin(), shape.end()}, {}};
  out.data.resize(values->size() * sizeof(float));
  std::memcpy(out.data.data(), values->data(), out.data.size());
  return out;
}

Result<ChangedTensor> transpose(DType dtype, std::span<const std::int64_t> shape,
                                std::span<const std::byte> data) {
  if (shape.size() != 2) return misfit(shape, "two dimensions");
  if (is_block_quantized(dtype)) {
    return Error{ErrorCode::kUnsupported,
                 "a quantized matrix cannot be transposed",
                 "",
                 std::string(dtype_name(dtype)),
                 "a plain type",
                 ""};
  }
  ChangedTensor out{dtype, {shape[1], shape[0]}, std::vector<std::byte>(data.size())};
  const auto rows = static_cast<std::size_t>(shape[0]);
  const auto columns = static_cast<std::size_t>(shape[1]);
  const auto size = static_cast<std::size_t>(dtype_info(dtype).bytes);
  for (std::size_t row = 0; row < rows; ++row) {
    for (std::size_t column = 0; column < columns; ++column) {
      std::memcpy(out.data.data() + (column * rows + row) * size,
                  data.data() + (row * columns + column) * size, size);
    }
  }
  return out;
}

Result<ChangedTensor> change_tensor(Change change, DType dtype, std::span<const std::int64_t> shape,
                                    std::span<const std::byte> data, const HeadCounts& heads,
                                    bool towards_gguf) {
  switch (change) {
    case Change::kRopeQuery: return permute(dtype, shape, data, heads.query, towards_gguf);
    case Change::kRopeKey: return permute(dtype, shape, data, heads.key, towards_gguf);
    case Change::kPlusOne: return add(dtype, shape, data, towards_gguf ? 1.0f : -1.0f);
    case Change::kTranspose: return transpose(dtype, shape, data);
    case Change::kNone: break;
  }
  return ChangedTensor{dtype, {shape.begin(), shape.end()}, {data.begin(), data.end()}};
}

// What stands for '*' in `pattern`, if `name` matches: "" for a pattern without one.
std::optional<std::string_view> match(std::string_view pattern, std::string_view name) {
  const std::size_t star = pattern.find('*');
  if (star == pattern.npos) {
    if (pattern != name) return std::nullopt;
    return std::string_view();
  }
  const std::string_view head = pattern.substr(0, star);
  const std::string_view tail = pattern.substr(star + 1);
  if (name.size() <= head.size() + tail.size()) return std::nullopt;
  if (!name.starts_with(head) || !name.ends_with(tail)) return std::nullopt;
  const std::string_view number = name.substr(head.size(), name.size() - head.size() - tail.size());
  const bool digits = std::all_of(number.begin(), number.end(),
                                  [](char letter) { return letter >= '0' && letter <= '9'; });
  if (!digits || number.size() > 6) return std::nullopt;
  return number;
}

std::string filled(std::string_view pattern, std::string_view number) {
  std::string name(pattern);
  if (const std::size_t star = name.find('*'); star != name.npos) name.replace(star, 1, number);
  return name;
}

}  // namespace

Result<ChangedTensor> to_gguf(Change change, DType dtype, std::span<const std::int64_t> shape,
                              std::span<const std::byte> data, const HeadCounts& heads) {
  return change_tensor(change, dtype, shape, data, heads, true);
}

Result<ChangedTensor> to_hugging_face(Change change, DType dtype,
                                      std::span<const std::int64_t> shape,
                                      std::span<const std::byte> data, const HeadCounts& heads) {
  return change_tensor(change, dtype, shape, data, heads, false);
}

std::optional<NamedTensor> gguf_name(const models::Family& family, std::string_view hugging_face) {
  for (const models::TensorName& tensor : family.tensors) {
    if (const auto number = match(tensor.hugging_face, hugging_face)) {
      return NamedTensor{filled(tensor.gguf, *number), tensor.change};
    }
  }
  return std::nullopt;
}

std::optional<NamedTensor> hugging_face_name(const models::Family& family, std::string_view gguf) {
  for (const models::TensorName& tensor : family.tensors) {
    if (const auto number = match(tensor.gguf, gguf)) {
      return NamedTensor{filled(tensor.hugging_face, *number), tensor.change};
    }
  }
  return std::nullopt;
}

}  // namespace hone::engine

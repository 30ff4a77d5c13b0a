// The writer of safetensors: the header is known before the data, which then streams.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <numeric>
#include <set>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "formats/safetensors.h"
#include "formats/safetensors_header.h"

namespace hone::formats {
namespace {

Error bad_tensor(const std::string& name, const char* what, std::string found,
                 std::string expected) {
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("tensor '{}' {}", printable(name), what),
               "",
               std::move(found),
               std::move(expected),
               ""};
}

// JSON text of a string; an error if it is not UTF-8, which JSON must be.
Result<std::string> quoted(const std::string& text) {
  using Json = nlohmann::json;
  std::string out = Json(text).dump(-1, ' ', false, Json::error_handler_t::replace);
  const Json back = Json::parse(out, nullptr, false);
  if (!back.is_string() || back.get_ref<const std::string&>() != text) {
    return Error{ErrorCode::kInvalidArgument,
                 "a name or text is not UTF-8",
                 "",
                 printable(text),
                 "UTF-8",
                 ""};
  }
  return out;
}

Result<std::uint64_t> check_tensor(const SafetensorsTensorToWrite& tensor) {
  if (tensor.name.empty() || tensor.name == "__metadata__") {
    return bad_tensor(tensor.name, "has a name that safetensors cannot hold", "", "another name");
  }
  if (safetensors_dtype_name(tensor.dtype).empty()) {
    return bad_tensor(tensor.name, "has an element type that safetensors lacks",
                      std::string(dtype_name(tensor.dtype)), "a plain number, such as f16 or bf16");
  }
  const auto bytes = checked_tensor_bytes(tensor.dtype, tensor.shape);
  if (!bytes) {
    return bad_tensor(tensor.name, "has an impossible shape", shape_text(tensor.shape),
                      "extents whose product fits");
  }
  if (!tensor.fill && tensor.data.size() != static_cast<std::uint64_t>(*bytes)) {
    return bad_tensor(tensor.name, "has data of the wrong size",
                      fmt::format("{} bytes", tensor.data.size()), fmt::format("{}", *bytes));
  }
  return static_cast<std::uint64_t>(*bytes);
}

Status write_tensor(const SafetensorsTensorToWrite& tensor, std::uint64_t size,
                    const Append& append) {
  if (!tensor.fill) return append(tensor.data);
  std::uint64_t written = 0;
  HONE_RETURN_IF_ERROR(tensor.fill([&](std::span<const std::byte> bytes) {
    written += bytes.size();
    return append(bytes);
  }));
  if (written == size) return {};
  return bad_tensor(tensor.name, "was filled with the wrong number of bytes",
                    fmt::format("{}", written), fmt::format("{}", size));
}

Result<std::string> metadata_json(const std::map<std::string, std::string>& metadata) {
  std::string out;
  for (const auto& [key, value] : metadata) {
    const auto key_text = quoted(key);
    if (!key_text) return key_text.error();
    const auto value_text = quoted(value);
    if (!value_text) return value_text.error();
    out += fmt::format("{}{}:{}", out.empty() ? "" : ",", *key_text, *value_text);
  }
  return "\"__metadata__\":{" + out + "}";
}

}  // namespace

Status write_safetensors(const std::string& path, std::span<const SafetensorsTensorToWrite> tensors,
                         const std::map<std::string, std::string>& metadata) {
  // Other readers allow no holes, so alignment comes from the order: wide elements first.
  std::vector<std::size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return dtype_info(tensors[a].dtype).bytes > dtype_info(tensors[b].dtype).bytes;
  });

  std::string header = "{";
  if (!metadata.empty()) {
    const auto text = metadata_json(metadata);
    if (!text) return text.error().in(path);
    header += *text;
  }
  std::set<std::string_view> names;
  std::vector<std::uint64_t> sizes(tensors.size());
  std::uint64_t offset = 0;
  for (const std::size_t i : order) {
    const SafetensorsTensorToWrite& tensor = tensors[i];
    const auto size = check_tensor(tensor);
    if (!size) return size.error().in(path);
    if (!names.insert(tensor.name).second) {
      return bad_tensor(tensor.name, "is there twice", "", "each name once").in(path);
    }
    const auto name = quoted(tensor.name);
    if (!name) return name.error().in(path);
    sizes[i] = *size;
    header += fmt::format("{}{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}",
                          header.size() > 1 ? "," : "", *name, safetensors_dtype_name(tensor.dtype),
                          fmt::join(tensor.shape, ","), offset, offset + *size);
    offset += *size;
  }
  header += "}";
  header.resize((header.size() + 7) / 8 * 8, ' ');

  return write_file_atomically(path, [&](const Append& append) -> Status {
    const auto length = static_cast<std::uint64_t>(header.size());
    HONE_RETURN_IF_ERROR(append(std::as_bytes(std::span(&length, 1))));
    HONE_RETURN_IF_ERROR(append(std::as_bytes(std::span(header))));
    for (const std::size_t i : order) {
      const Status status = write_tensor(tensors[i], sizes[i], append);
      if (!status) return status.error().in(path);
    }
    return {};
  });
}

}  // namespace hone::formats

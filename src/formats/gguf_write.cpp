// The writer of GGUF, version 3: header first, then one tensor at a time.
// SPDX-License-Identifier: Apache-2.0
#include <set>
#include <type_traits>

#include <fmt/format.h>

#include "formats/gguf.h"

namespace hone::formats {
namespace {

constexpr std::size_t kMostNameBytes = 63;  // other readers keep a terminated name of 64
constexpr std::size_t kMostDimensions = 4;
constexpr std::uint32_t kVersion = 3;

class Buffer {
 public:
  template <typename T>
  void number(T value) {
    static_assert(std::is_arithmetic_v<T>);
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  void text(std::string_view value) {
    number(static_cast<std::uint64_t>(value.size()));
    bytes_ += value;
  }
  void raw(std::string_view value) { bytes_ += value; }
  void pad(std::size_t alignment) {
    bytes_.resize((bytes_.size() + alignment - 1) / alignment * alignment, '\0');
  }
  std::span<const std::byte> bytes() const { return std::as_bytes(std::span(bytes_)); }

 private:
  std::string bytes_;
};

template <typename T>
void put_scalar(Buffer& out, const T& value) {
  if constexpr (std::is_same_v<T, std::string>) {
    out.text(value);
  } else if constexpr (std::is_same_v<T, bool>) {
    out.number(static_cast<std::uint8_t>(value));
  } else {
    out.number(value);
  }
}

// The variant's index is the type's number in the file, 9 standing for arrays (gguf.cpp asserts).
// MetaArray lists the same types without the array itself.
std::uint32_t element_type(const MetaArray& array) {
  const auto index = static_cast<std::uint32_t>(array.index());
  return index < 9 ? index : index + 1;
}

void put_value(Buffer& out, const MetaValue& value) {
  out.number(static_cast<std::uint32_t>(value.index()));
  std::visit(
      [&]<typename T>(const T& held) {
        if constexpr (std::is_same_v<T, MetaArray>) {
          out.number(element_type(held));
          std::visit(
              [&]<typename V>(const V& elements) {
                out.number(static_cast<std::uint64_t>(elements.size()));
                for (std::size_t i = 0; i < elements.size(); ++i) {
                  put_scalar(out, static_cast<typename V::value_type>(elements[i]));
                }
              },
              held);
        } else {
          put_scalar(out, held);
        }
      },
      value);
}

Error bad_tensor(const GgufTensorToWrite& tensor, const char* what, std::string found,
                 std::string expected, std::string advice = "") {
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("tensor '{}' {}", printable(tensor.name), what),
               "",
               std::move(found),
               std::move(expected),
               std::move(advice)};
}

// Bytes of the tensor, if it can be written.
Result<std::uint64_t> check_tensor(const GgufTensorToWrite& tensor) {
  if (tensor.name.empty() || tensor.name.size() > kMostNameBytes) {
    return bad_tensor(tensor, "has a name that GGUF cannot hold",
                      fmt::format("{} bytes", tensor.name.size()),
                      fmt::format("1 to {}", kMostNameBytes));
  }
  if (dtype_info(tensor.dtype).gguf_type < 0) {
    return bad_tensor(tensor, "has an element type that GGUF lacks",
                      std::string(dtype_name(tensor.dtype)), "", "convert it to i8 or i16");
  }
  if (tensor.shape.size() > kMostDimensions) {
    return bad_tensor(tensor, "has too many dimensions", shape_text(tensor.shape),
                      fmt::format("at most {}", kMostDimensions));
  }
  const auto bytes = checked_tensor_bytes(tensor.dtype, tensor.shape);
  if (!bytes) {
    return bad_tensor(tensor, "has an impossible shape", shape_text(tensor.shape),
                      fmt::format("rows of whole blocks of {}, the block of {}",
                                  dtype_info(tensor.dtype).block, dtype_name(tensor.dtype)));
  }
  if (!tensor.fill && tensor.data.size() != static_cast<std::uint64_t>(*bytes)) {
    return bad_tensor(tensor, "has data of the wrong size",
                      fmt::format("{} bytes", tensor.data.size()), fmt::format("{}", *bytes));
  }
  return static_cast<std::uint64_t>(*bytes);
}

Status write_tensor(const GgufTensorToWrite& tensor, std::uint64_t size, std::size_t alignment,
                    const Append& append) {
  if (tensor.fill) {
    std::uint64_t written = 0;
    HONE_RETURN_IF_ERROR(tensor.fill([&](std::span<const std::byte> bytes) {
      written += bytes.size();
      return append(bytes);
    }));
    if (written != size) {
      return bad_tensor(tensor, "was filled with the wrong number of bytes",
                        fmt::format("{}", written), fmt::format("{}", size));
    }
  } else {
    HONE_RETURN_IF_ERROR(append(tensor.data));
  }
  const std::vector<std::byte> padding((alignment - size % alignment) % alignment);
  return append(padding);
}

}  // namespace

Status write_gguf(const std::string& path, const Metadata& metadata,
                  std::span<const GgufTensorToWrite> tensors) {
  const auto wanted_alignment = metadata.integer_or("general.alignment", 32);
  if (!wanted_alignment) return wanted_alignment.error();
  constexpr std::int64_t kLargestAlignment = std::int64_t{1} << 30;
  if (*wanted_alignment < 1 || *wanted_alignment > kLargestAlignment ||
      (*wanted_alignment & (*wanted_alignment - 1)) != 0) {
    return Error{ErrorCode::kInvalidArgument,          "general.alignment makes no sense", path,
                 fmt::format("{}", *wanted_alignment), "a power of two, at most 2^30",     ""};
  }
  const auto alignment = static_cast<std::size_t>(*wanted_alignment);

  Buffer header;
  header.raw("GGUF");
  header.number(kVersion);
  header.number(static_cast<std::uint64_t>(tensors.size()));
  header.number(static_cast<std::uint64_t>(metadata.size()));
  for (const Metadata::Entry& entry : metadata.entries()) {
    header.text(entry.key);
    put_value(header, entry.value);
  }
  std::set<std::string_view> names;
  std::vector<std::uint64_t> sizes;
  std::uint64_t offset = 0;
  for (const GgufTensorToWrite& tensor : tensors) {
    const auto size = check_tensor(tensor);
    if (!size) return size.error().in(path);
    if (!names.insert(tensor.name).second) {
      return bad_tensor(tensor, "is there twice", "", "each name once").in(path);
    }
    header.text(tensor.name);
    header.number(static_cast<std::uint32_t>(tensor.shape.size()));
    for (auto extent = tensor.shape.rbegin(); extent != tensor.shape.rend(); ++extent) {
      header.number(static_cast<std::uint64_t>(*extent));
    }
    header.number(static_cast<std::uint32_t>(dtype_info(tensor.dtype).gguf_type));
    header.number(offset);
    sizes.push_back(*size);
    offset += (*size + alignment - 1) / alignment * alignment;
  }
  header.pad(alignment);

  return write_file_atomically(path, [&](const Append& append) -> Status {
    HONE_RETURN_IF_ERROR(append(header.bytes()));
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      const Status status = write_tensor(tensors[i], sizes[i], alignment, append);
      if (!status) return status.error().in(path);
    }
    return {};
  });
}

}  // namespace hone::formats

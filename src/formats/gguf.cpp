// The reader of GGUF: a cursor over untrusted bytes that believes no length before it fits the
// file.
// SPDX-License-Identifier: Apache-2.0
#include "formats/gguf.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include <fmt/format.h>

namespace hone::formats {

static_assert(std::endian::native == std::endian::little, "GGUF is read in place");

namespace {

constexpr std::size_t kHeaderBytes = 24;  // magic, version, two counts
constexpr std::uint64_t kDefaultAlignment = 32;
constexpr std::int64_t kLargestAlignment = std::int64_t{1} << 30;
constexpr std::uint32_t kMostDimensions = 4;
// Fewest bytes that an entry can take: key length, type and a one-byte value; and name length,
// dimension count, type and offset.
constexpr std::uint64_t kLeastEntryBytes = 8 + 4 + 1;
constexpr std::uint64_t kLeastTensorBytes = 8 + 4 + 4 + 8;

// Value types, in the order of their numbers; MetaValue lists the same types in the same order.
constexpr std::uint32_t kTypeText = 8;
constexpr std::uint32_t kTypeArray = 9;
constexpr std::uint32_t kTypeCount = 13;
static_assert(std::variant_size_v<MetaValue> == kTypeCount);

constexpr const char* kTruncated = "get the file again: it seems truncated";

struct KnownType {
  std::uint32_t number;
  const char* name;
};
// Tensor types that exist elsewhere, so that an error can name them.
constexpr KnownType kOtherTypes[] = {
    {9, "Q8_1"},   {15, "Q8_K"},  {16, "IQ2_XXS"}, {17, "IQ2_XS"}, {18, "IQ3_XXS"},
    {19, "IQ1_S"}, {21, "IQ3_S"}, {22, "IQ2_S"},   {23, "IQ4_XS"}, {29, "IQ1_M"},
    {34, "TQ1_0"}, {35, "TQ2_0"}, {39, "MXFP4"},   {40, "NVFP4"}};

std::string tensor_type_text(std::uint32_t number) {
  for (const KnownType& known : kOtherTypes) {
    if (known.number == number) return fmt::format("type {} ({})", number, known.name);
  }
  return fmt::format("type {}", number);
}

std::string known_types() {
  std::string out;
  for (const DTypeInfo& info : all_dtypes()) {
    if (info.gguf_type < 0) continue;
    out += fmt::format("{}{} ({})", out.empty() ? "" : ", ", info.gguf_type, info.name);
  }
  return out;
}

std::string first_bytes(std::span<const std::byte> bytes) {
  std::string text(reinterpret_cast<const char*>(bytes.data()),
                   std::min<std::size_t>(4, bytes.size()));
  return bytes.empty() ? "an empty file" : "'" + printable(text) + "'";
}

std::string advice_for_magic(std::span<const std::byte> bytes) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (text.starts_with("version https://git-lfs")) {
    return "this is a Git LFS pointer: get the file that it points to";
  }
  if (text.starts_with("<")) return "this seems to be a web page: download the file itself";
  if (text.starts_with("PK")) return "this is a zip archive, perhaps a PyTorch checkpoint";
  if (text.size() > 8 && text[8] == '{') return "this seems to be a safetensors file";
  return "check that this is the model's file";
}

}  // namespace

class GgufReader {
 public:
  GgufReader(std::span<const std::byte> bytes, std::string name)
      : bytes_(bytes), name_(std::move(name)) {}

  Result<GgufFile> read();

 private:
  std::uint64_t left() const { return bytes_.size() - position_; }
  Error error_at(std::size_t offset, ErrorCode code, std::string what, std::string found,
                 std::string expected, std::string advice) const {
    return Error{code,
                 std::move(what),
                 fmt::format("{}, byte {}", name_, offset),
                 std::move(found),
                 std::move(expected),
                 std::move(advice)};
  }
  Error truncated(const std::string& what, std::uint64_t needed) const {
    return error_at(position_, ErrorCode::kCorrupt, "the file ends inside " + what,
                    fmt::format("{} bytes left", left()), fmt::format("at least {}", needed),
                    kTruncated);
  }

  template <typename T>
  Result<T> number(const std::string& what);
  Result<std::string_view> text(const std::string& what);
  template <typename T>
  Result<MetaArray> array_of(std::uint64_t count, const std::string& what);
  Result<MetaArray> array(const std::string& what);
  template <typename T>
  Result<MetaValue> value_of(const std::string& what);
  Result<MetaValue> value(std::uint32_t type, const std::string& what);

  Status read_header(std::uint64_t& tensors, std::uint64_t& entries);
  Status read_metadata(std::uint64_t count);
  Status read_alignment();
  Status read_shape(const std::string& what, TensorRecord& record);
  Status read_tensor(std::vector<std::uint64_t>& offsets);
  Status place_tensor(TensorRecord& record, std::uint64_t offset, std::uint64_t data_start) const;
  Status place_tensors(std::span<const std::uint64_t> offsets);

  std::span<const std::byte> bytes_;
  std::string name_;
  std::size_t position_ = 0;
  GgufFile file_;
};

template <typename T>
Result<T> GgufReader::number(const std::string& what) {
  if (left() < sizeof(T)) return truncated(what, sizeof(T));
  T value;
  std::memcpy(&value, bytes_.data() + position_, sizeof(T));
  position_ += sizeof(T);
  return value;
}

Result<std::string_view> GgufReader::text(const std::string& what) {
  const auto length = number<std::uint64_t>(what);
  if (!length) return length.error();
  if (*length > left()) {
    return error_at(position_ - 8, ErrorCode::kCorrupt, what + " is longer than the file",
                    fmt::format("{} bytes", *length), fmt::format("at most {}", left()),
                    kTruncated);
  }
  const auto size = static_cast<std::size_t>(*length);
  const std::string_view text(reinterpret_cast<const char*>(bytes_.data()) + position_, size);
  position_ += size;
  return text;
}

template <typename T>
Result<MetaArray> GgufReader::array_of(std::uint64_t count, const std::string& what) {
  constexpr bool kText = std::is_same_v<T, std::string>;
  constexpr std::uint64_t kLeastBytes = kText ? 8 : std::is_same_v<T, bool> ? 1 : sizeof(T);
  if (count > left() / kLeastBytes) {
    return error_at(position_ - 8, ErrorCode::kCorrupt,
                    what + " has more elements than the file could hold",
                    fmt::format("{} elements", count),
                    fmt::format("at most {}", left() / kLeastBytes), kTruncated);
  }
  const auto size = static_cast<std::size_t>(count);
  std::conditional_t<kText, TextTable, std::vector<T>> elements;
  if constexpr (kText) {
    elements.reserve(size, 0);
    for (std::size_t i = 0; i < size; ++i) {
      const std::size_t start = position_;
      const auto element = text(what);
      if (!element) return element.error();
      if (element->size() > TextTable::kMostBytes - elements.total_bytes()) {
        return error_at(start, ErrorCode::kOutOfRange, what + " is too large",
                        fmt::format("{} elements", size), "below 4 GiB of text", "");
      }
      elements.push_back(*element);
    }
  } else if constexpr (std::is_same_v<T, bool>) {
    elements.resize(size);
    for (std::size_t i = 0; i < size; ++i) elements[i] = bytes_[position_ + i] != std::byte{0};
    position_ += size;
  } else {
    elements.resize(size);
    if (size > 0) std::memcpy(elements.data(), bytes_.data() + position_, size * sizeof(T));
    position_ += size * sizeof(T);
  }
  return MetaArray(std::move(elements));
}

Result<MetaArray> GgufReader::array(const std::string& what) {
  const std::size_t start = position_;
  const auto type = number<std::uint32_t>(what);
  if (!type) return type.error();
  const auto count = number<std::uint64_t>(what);
  if (!count) return count.error();
  switch (*type) {
    case 0: return array_of<std::uint8_t>(*count, what);
    case 1: return array_of<std::int8_t>(*count, what);
    case 2: return array_of<std::uint16_t>(*count, what);
    case 3: return array_of<std::int16_t>(*count, what);
    case 4: return array_of<std::uint32_t>(*count, what);
    case 5: return array_of<std::int32_t>(*count, what);
    case 6: return array_of<float>(*count, what);
    case 7: return array_of<bool>(*count, what);
    case kTypeText: return array_of<std::string>(*count, what);
    case kTypeArray:
      return error_at(start, ErrorCode::kUnsupported, what + " is an array of arrays",
                      "element type 9 (array)", "numbers, bools or text", "");
    case 10: return array_of<std::uint64_t>(*count, what);
    case 11: return array_of<std::int64_t>(*count, what);
    case 12: return array_of<double>(*count, what);
    default:
      return error_at(start, ErrorCode::kCorrupt, what + " has elements of an unknown type",
                      fmt::format("type {}", *type), fmt::format("0 to {}", kTypeCount - 1),
                      kTruncated);
  }
}

template <typename T>
Result<MetaValue> GgufReader::value_of(const std::string& what) {
  auto value = number<T>(what);
  if (!value) return value.error();
  return MetaValue(*value);
}

Result<MetaValue> GgufReader::value(std::uint32_t type, const std::string& what) {
  switch (type) {
    case 0: return value_of<std::uint8_t>(what);
    case 1: return value_of<std::int8_t>(what);
    case 2: return value_of<std::uint16_t>(what);
    case 3: return value_of<std::int16_t>(what);
    case 4: return value_of<std::uint32_t>(what);
    case 5: return value_of<std::int32_t>(what);
    case 6: return value_of<float>(what);
    case 7: {
      // Read as a number: a byte that is neither 0 nor 1 must not become a bool unconverted.
      const auto byte = number<std::uint8_t>(what);
      if (!byte) return byte.error();
      return MetaValue(*byte != 0);
    }
    case kTypeText: {
      const auto held = text(what);
      if (!held) return held.error();
      return MetaValue(std::string(*held));
    }
    case kTypeArray: {
      auto elements = array(what);
      if (!elements) return elements.error();
      return MetaValue(std::move(*elements));
    }
    case 10: return value_of<std::uint64_t>(what);
    case 11: return value_of<std::int64_t>(what);
    case 12: return value_of<double>(what);
    default:
      return error_at(position_ - 4, ErrorCode::kCorrupt, what + " has an unknown type",
                      fmt::format("type {}", type), fmt::format("0 to {}", kTypeCount - 1),
                      kTruncated);
  }
}

Status GgufReader::read_header(std::uint64_t& tensors, std::uint64_t& entries) {
  if (bytes_.size() < 4 || std::memcmp(bytes_.data(), "GGUF", 4) != 0) {
    return error_at(0, ErrorCode::kCorrupt, "this is not a GGUF file", first_bytes(bytes_),
                    "'GGUF'", advice_for_magic(bytes_));
  }
  if (bytes_.size() < kHeaderBytes) return truncated("the header", kHeaderBytes);
  position_ = 4;
  const std::uint32_t version = number<std::uint32_t>("the version").value();
  // A big-endian 2 or 3 has only its highest byte set.
  if ((version & 0xffffu) == 0 && version != 0) {
    return error_at(4, ErrorCode::kUnsupported, "this GGUF file is big-endian",
                    fmt::format("version {:#010x}", version), "a little-endian file",
                    "get the little-endian file, or convert it with gguf_convert_endian.py");
  }
  if (version != 2 && version != 3) {
    return error_at(4, ErrorCode::kUnsupported, "this version of GGUF is not supported",
                    fmt::format("version {}", version), "2 or 3",
                    version < 2 ? "convert the model again with a current converter"
                                : "get a newer hone, or a file of version 3");
  }
  file_.version_ = version;
  tensors = number<std::uint64_t>("the tensor count").value();
  entries = number<std::uint64_t>("the metadata count").value();
  if (tensors > left() / kLeastTensorBytes) {
    return error_at(8, ErrorCode::kCorrupt, "more tensors than the file could hold",
                    fmt::format("{} tensors", tensors),
                    fmt::format("at most {}", left() / kLeastTensorBytes), kTruncated);
  }
  if (entries > left() / kLeastEntryBytes) {
    return error_at(16, ErrorCode::kCorrupt, "more metadata than the file could hold",
                    fmt::format("{} entries", entries),
                    fmt::format("at most {}", left() / kLeastEntryBytes), kTruncated);
  }
  return {};
}

Status GgufReader::read_metadata(std::uint64_t count) {
  file_.metadata_ = Metadata(name_);
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::size_t start = position_;
    const auto key = text(fmt::format("the key of metadata entry {}", i));
    if (!key) return key.error();
    const std::string what = fmt::format("metadata '{}'", printable(*key));
    if (file_.metadata_.has(*key)) {
      return error_at(start, ErrorCode::kCorrupt, what + " is there twice", "", "each key once",
                      "");
    }
    const auto type = number<std::uint32_t>(what);
    if (!type) return type.error();
    auto held = value(*type, what);
    if (!held) return held.error();
    file_.metadata_.set(std::string(*key), std::move(*held));
  }
  return {};
}

Status GgufReader::read_alignment() {
  const auto alignment =
      file_.metadata_.integer_or("general.alignment", static_cast<std::int64_t>(kDefaultAlignment));
  if (!alignment) return alignment.error();
  if (*alignment < 1 || *alignment > kLargestAlignment || (*alignment & (*alignment - 1)) != 0) {
    return Error{ErrorCode::kCorrupt,
                 "general.alignment makes no sense",
                 name_,
                 fmt::format("{}", *alignment),
                 fmt::format("a power of two, at most {}", kLargestAlignment),
                 ""};
  }
  file_.alignment_ = static_cast<std::size_t>(*alignment);
  return {};
}

Status GgufReader::read_shape(const std::string& what, TensorRecord& record) {
  const std::size_t start = position_;
  const auto dimensions = number<std::uint32_t>(what);
  if (!dimensions) return dimensions.error();
  if (*dimensions > kMostDimensions) {
    return error_at(start, ErrorCode::kCorrupt, what + " has too many dimensions",
                    fmt::format("{} dimensions", *dimensions),
                    fmt::format("at most {}", kMostDimensions), kTruncated);
  }
  record.shape.resize(*dimensions);
  for (std::uint32_t d = 0; d < *dimensions; ++d) {
    const auto extent = number<std::uint64_t>(what);
    if (!extent) return extent.error();
    if (*extent > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
      return error_at(position_ - 8, ErrorCode::kCorrupt, what + " has an impossible extent",
                      fmt::format("{}", *extent), "less than 2^63", kTruncated);
    }
    record.shape[*dimensions - 1 - d] = static_cast<std::int64_t>(*extent);
  }
  return {};
}

Status GgufReader::read_tensor(std::vector<std::uint64_t>& offsets) {
  const std::size_t start = position_;
  const auto name = text(fmt::format("the name of tensor {}", file_.tensors_.size()));
  if (!name) return name.error();
  const std::string what = fmt::format("tensor '{}'", printable(*name));
  TensorRecord record;
  record.name = *name;
  if (!file_.index_.try_emplace(std::string(*name), file_.tensors_.size()).second) {
    return error_at(start, ErrorCode::kCorrupt, what + " is there twice", "", "each name once", "");
  }
  const std::size_t shape_start = position_;
  HONE_RETURN_IF_ERROR(read_shape(what, record));
  const auto type = number<std::uint32_t>(what);
  if (!type) return type.error();
  const auto dtype = dtype_from_gguf(*type);
  if (!dtype) {
    return error_at(position_ - 4, ErrorCode::kUnsupported,
                    what + " has an element type that hone does not know", tensor_type_text(*type),
                    known_types(), "get the model in another quantization, such as Q4_K_M or Q8_0");
  }
  record.dtype = *dtype;
  const auto offset = number<std::uint64_t>(what);
  if (!offset) return offset.error();
  const std::int64_t block = dtype_info(*dtype).block;
  if (!record.shape.empty() && record.shape.back() % block != 0) {
    return error_at(shape_start, ErrorCode::kCorrupt, what + " has rows that are not whole blocks",
                    fmt::format("rows of {}", record.shape.back()),
                    fmt::format("a multiple of {}, the block of {}", block, dtype_name(*dtype)),
                    "");
  }
  if (!checked_tensor_bytes(*dtype, record.shape)) {
    return error_at(shape_start, ErrorCode::kCorrupt, what + " has dimensions that overflow",
                    shape_text(record.shape) + " of " + std::string(dtype_name(*dtype)),
                    "whole blocks, less than 2^63 bytes in all", "");
  }
  offsets.push_back(*offset);
  file_.tensors_.push_back(std::move(record));
  return {};
}

Status GgufReader::place_tensor(TensorRecord& record, std::uint64_t offset,
                                std::uint64_t data_start) const {
  const std::string what = fmt::format("tensor '{}'", printable(record.name));
  if (offset % file_.alignment_ != 0) {
    return Error{ErrorCode::kCorrupt,
                 what + " is not aligned",
                 name_,
                 fmt::format("offset {}", offset),
                 fmt::format("a multiple of general.alignment, {}", file_.alignment_),
                 ""};
  }
  const auto size = static_cast<std::uint64_t>(*checked_tensor_bytes(record.dtype, record.shape));
  const std::uint64_t room = bytes_.size() > data_start ? bytes_.size() - data_start : 0;
  if (size > room || offset > room - size) {
    return Error{ErrorCode::kCorrupt,
                 what + " lies outside of the file",
                 name_,
                 fmt::format("{} bytes from {} bytes into the data, which starts at byte {}", size,
                             offset, data_start),
                 fmt::format("an end within the file's {} bytes", bytes_.size()),
                 kTruncated};
  }
  record.file_offset = static_cast<std::size_t>(data_start + offset);
  record.data = size == 0 ? std::span<const std::byte>()
                          : bytes_.subspan(record.file_offset, static_cast<std::size_t>(size));
  return {};
}

Status GgufReader::place_tensors(std::span<const std::uint64_t> offsets) {
  const std::uint64_t alignment = file_.alignment_;
  const std::uint64_t data_start = (position_ + alignment - 1) / alignment * alignment;
  for (std::size_t i = 0; i < offsets.size(); ++i) {
    HONE_RETURN_IF_ERROR(place_tensor(file_.tensors_[i], offsets[i], data_start));
  }
  if (const auto overlap = find_overlap(file_.tensors_)) {
    const TensorRecord& first = file_.tensors_[overlap->first];
    const TensorRecord& second = file_.tensors_[overlap->second];
    return error_at(
        second.file_offset, ErrorCode::kCorrupt,
        fmt::format("tensors '{}' and '{}' overlap", printable(first.name), printable(second.name)),
        fmt::format("the second starts at byte {}", second.file_offset),
        fmt::format("at least {}, where the first ends", first.file_offset + first.data.size()),
        "");
  }
  return {};
}

Result<GgufFile> GgufReader::read() {
  std::uint64_t tensors = 0;
  std::uint64_t entries = 0;
  HONE_RETURN_IF_ERROR(read_header(tensors, entries));
  HONE_RETURN_IF_ERROR(read_metadata(entries));
  HONE_RETURN_IF_ERROR(read_alignment());
  std::vector<std::uint64_t> offsets;
  for (std::uint64_t i = 0; i < tensors; ++i) HONE_RETURN_IF_ERROR(read_tensor(offsets));
  HONE_RETURN_IF_ERROR(place_tensors(offsets));
  return std::move(file_);
}

Result<GgufFile> GgufFile::parse(std::span<const std::byte> bytes, std::string name) {
  return GgufReader(bytes, std::move(name)).read();
}

Result<GgufFile> GgufFile::open(const std::string& path) {
  auto mapped = MappedFile::open(path);
  if (!mapped) return mapped.error();
  auto file = parse(mapped->bytes(), path);
  if (!file) return file.error();
  file->file_ = std::move(*mapped);
  return file;
}

const TensorRecord* GgufFile::find(std::string_view name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

}  // namespace hone::formats

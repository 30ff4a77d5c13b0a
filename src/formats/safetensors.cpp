// The reader of safetensors: 8 bytes of header length, a JSON header, then the data.
// SPDX-License-Identifier: Apache-2.0
#include "formats/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <filesystem>
#include <set>
#include <utility>

#include <fmt/format.h>

#include "formats/safetensors_header.h"

namespace hone::formats {

static_assert(std::endian::native == std::endian::little, "safetensors are read in place");

namespace {

constexpr std::size_t kLengthBytes = 8;
constexpr std::uint64_t kMostHeaderBytes = 100'000'000;  // the limit of the reference reader
constexpr const char* kTruncated = "get the file again: it seems truncated";
constexpr const char* kIndexName = "model.safetensors.index.json";

Result<std::string_view> header_text(std::span<const std::byte> bytes, const std::string& name) {
  const std::string where = name + ", byte 0";
  if (bytes.size() < kLengthBytes) {
    return Error{ErrorCode::kCorrupt,
                 "this is not a safetensors file",
                 where,
                 fmt::format("{} bytes", bytes.size()),
                 "at least 8 bytes of header length",
                 kTruncated};
  }
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), kLengthBytes);
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (text.starts_with("version ")) {
    return Error{ErrorCode::kCorrupt,
                 "this is not a safetensors file",
                 where,
                 "a Git LFS pointer",
                 "",
                 "get the file that it points to"};
  }
  if (length > kMostHeaderBytes || length > bytes.size() - kLengthBytes) {
    return Error{ErrorCode::kCorrupt,
                 "the header is longer than it can be",
                 where,
                 fmt::format("{} bytes", length),
                 fmt::format("at most {}", std::min<std::uint64_t>(kMostHeaderBytes,
                                                                   bytes.size() - kLengthBytes)),
                 text.starts_with("GGUF") ? "this is a GGUF file" : kTruncated};
  }
  return text.substr(kLengthBytes, static_cast<std::size_t>(length));
}

}  // namespace

class SafetensorsReader {
 public:
  // Adds the tensors of one file.
  Status add(std::span<const std::byte> bytes, const std::string& name, std::size_t file_number);
  Status add_file(const std::string& path);
  Status add_index(const std::string& path);
  Safetensors take() { return std::move(result_); }

 private:
  static Result<TensorRecord> place(const SafetensorsEntry& entry, std::span<const std::byte> bytes,
                                    std::size_t data_start, const std::string& name);
  Safetensors result_;
};

Result<TensorRecord> SafetensorsReader::place(const SafetensorsEntry& entry,
                                              std::span<const std::byte> bytes,
                                              std::size_t data_start, const std::string& name) {
  const std::string what = fmt::format("tensor '{}'", printable(entry.name));
  const std::uint64_t begin = entry.data_offsets[0];
  const std::uint64_t end = entry.data_offsets[1];
  const std::size_t room = bytes.size() - data_start;
  if (begin > end || end > room) {
    return Error{ErrorCode::kCorrupt,
                 what + " lies outside of the file",
                 name,
                 fmt::format("data_offsets {} to {}", begin, end),
                 fmt::format("rising, at most {}, the file's bytes after its header", room),
                 kTruncated};
  }
  const auto size = checked_tensor_bytes(*entry.dtype, *entry.shape);
  if (!size || static_cast<std::uint64_t>(*size) != end - begin) {
    return Error{ErrorCode::kCorrupt,
                 what + " has a size that is not its shape's",
                 name,
                 fmt::format("{} bytes", end - begin),
                 size ? fmt::format("{} for {} of {}", *size, shape_text(*entry.shape),
                                    safetensors_dtype_name(*entry.dtype))
                      : fmt::format("a shape whose product fits, not {}", shape_text(*entry.shape)),
                 "get the file again: it seems damaged"};
  }
  TensorRecord record;
  record.name = entry.name;
  record.dtype = *entry.dtype;
  record.shape = *entry.shape;
  record.file_offset = data_start + static_cast<std::size_t>(begin);
  if (*size > 0) {
    record.data = bytes.subspan(record.file_offset, static_cast<std::size_t>(*size));
  }
  return record;
}

Status SafetensorsReader::add(std::span<const std::byte> bytes, const std::string& name,
                              std::size_t file_number) {
  const auto text = header_text(bytes, name);
  if (!text) return text.error();
  auto header = parse_safetensors_header(*text, name, kLengthBytes);
  if (!header) return header.error();
  const std::size_t data_start = kLengthBytes + text->size();
  std::vector<TensorRecord> records;
  for (const SafetensorsEntry& entry : header->tensors) {
    auto record = place(entry, bytes, data_start, name);
    if (!record) return record.error();
    record->file = file_number;
    records.push_back(std::move(*record));
  }
  std::stable_sort(records.begin(), records.end(),
                   [](const auto& a, const auto& b) { return a.file_offset < b.file_offset; });
  if (const auto overlap = find_overlap(records)) {
    return Error{
        ErrorCode::kCorrupt,
        fmt::format("tensors '{}' and '{}' overlap", printable(records[overlap->first].name),
                    printable(records[overlap->second].name)),
        fmt::format("{}, byte {}", name, records[overlap->second].file_offset),
        "",
        "data of their own for each tensor",
        "get the file again: it seems damaged"};
  }
  for (TensorRecord& record : records) {
    if (!result_.index_.try_emplace(record.name, result_.tensors_.size()).second) {
      return Error{ErrorCode::kCorrupt,
                   fmt::format("tensor '{}' is in two files", printable(record.name)),
                   name,
                   "",
                   "each tensor once",
                   "remove the file that does not belong to the model"};
    }
    result_.tensors_.push_back(std::move(record));
  }
  result_.metadata_.merge(header->metadata);
  return {};
}

Status SafetensorsReader::add_file(const std::string& path) {
  auto mapped = MappedFile::open(path);
  if (!mapped) return mapped.error();
  HONE_RETURN_IF_ERROR(add(mapped->bytes(), path, result_.files_.size()));
  result_.files_.push_back(std::move(*mapped));
  return {};
}

Status SafetensorsReader::add_index(const std::string& path) {
  const auto text = read_file(path);
  if (!text) return text.error();
  const auto weight_map = parse_safetensors_index(*text, path);
  if (!weight_map) return weight_map.error();
  std::map<std::string, std::size_t> numbers;  // file to its place in files_
  for (const auto& [tensor, file] : *weight_map) numbers.emplace(file, 0);
  for (auto& [file, number] : numbers) {
    number = result_.files_.size();
    const auto folder = std::filesystem::path(path).parent_path();
    HONE_RETURN_IF_ERROR(add_file((folder / file).string()));
  }
  for (const auto& [tensor, file] : *weight_map) {
    const TensorRecord* record = result_.find(tensor);
    if (record == nullptr || record->file != numbers[file]) {
      return Error{ErrorCode::kCorrupt,
                   fmt::format("tensor '{}' is missing", printable(tensor)),
                   path,
                   record == nullptr ? "in no file" : "in another file",
                   "in '" + printable(file) + "'",
                   "get the files again: they do not belong together"};
    }
  }
  return {};
}

Result<Safetensors> Safetensors::parse(std::span<const std::byte> bytes, const std::string& name) {
  SafetensorsReader reader;
  HONE_RETURN_IF_ERROR(reader.add(bytes, name, 0));
  return reader.take();
}

Result<Safetensors> Safetensors::open(const std::string& path) {
  SafetensorsReader reader;
  std::error_code ignored;  // a path that cannot be looked at fails in open(), with its reason
  if (std::filesystem::is_directory(path, ignored)) {
    const auto single = std::filesystem::path(path) / "model.safetensors";
    const auto index = std::filesystem::path(path) / kIndexName;
    if (std::filesystem::exists(single, ignored)) {
      HONE_RETURN_IF_ERROR(reader.add_file(single.string()));
    } else if (std::filesystem::exists(index, ignored)) {
      HONE_RETURN_IF_ERROR(reader.add_index(index.string()));
    } else {
      return Error{ErrorCode::kNotFound,
                   "this folder holds no weights",
                   path,
                   "",
                   fmt::format("model.safetensors or {}", kIndexName),
                   "get the safetensors files of the model (pytorch_model.bin is not read)"};
    }
  } else if (path.ends_with(".json")) {
    HONE_RETURN_IF_ERROR(reader.add_index(path));
  } else {
    HONE_RETURN_IF_ERROR(reader.add_file(path));
  }
  return reader.take();
}

const TensorRecord* Safetensors::find(std::string_view name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

}  // namespace hone::formats

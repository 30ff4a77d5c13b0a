// SPDX-License-Identifier: Apache-2.0
#include "engine/packed_file.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/checksum.h"
#include "base/system.h"

namespace hone::engine {
namespace {

constexpr std::string_view kMagic = "HONEPACK";
constexpr std::size_t kHeaderAt = 16;
constexpr std::size_t kAlignment = 64;

std::size_t aligned(std::size_t at) { return (at + kAlignment - 1) / kAlignment * kAlignment; }

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

// What an object says, or nothing of the kind.
std::int64_t integer_of(const nlohmann::json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_number_integer() ? found->get<std::int64_t>() : -1;
}

std::string text_of(const nlohmann::json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

// Of the header: nothing where anything is not as `write` makes it.
std::optional<nlohmann::json> header_of(std::span<const std::byte> bytes) {
  if (bytes.size() < kHeaderAt) return std::nullopt;
  const auto* text = reinterpret_cast<const char*>(bytes.data());
  std::uint64_t size = 0;
  std::memcpy(&size, bytes.data() + kMagic.size(), sizeof(size));
  if (std::string_view(text, kMagic.size()) != kMagic || size > bytes.size() - kHeaderAt) {
    return std::nullopt;
  }
  auto header = nlohmann::json::parse(text + kHeaderAt, text + kHeaderAt + size, nullptr, false);
  if (!header.is_object() || !header.contains("tensors") || !header["tensors"].is_array()) {
    return std::nullopt;
  }
  return header;
}

// Of writers that were killed: files beside this one that nobody has touched for an hour.
void remove_leftovers(const std::string& path) {
  std::error_code failed;
  const std::filesystem::path whole(path);
  for (const auto& entry : std::filesystem::directory_iterator(whole.parent_path(), failed)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(whole.filename().string() + ".")) continue;
    const auto touched = entry.last_write_time(failed);
    const auto now = std::filesystem::file_time_type::clock::now();
    if (!failed && now - touched > std::chrono::hours(1)) {
      std::filesystem::remove(entry.path(), failed);
    }
  }
}

}  // namespace

std::string packed_folder() {
  const std::string cache = cache_folder();
  return cache.empty() ? "" : cache + "/packed";
}

void pack_rows(const kernels::PackedLayout& layout, std::span<const std::byte> rows,
               std::span<std::byte> panels) {
  kernels::PackedLayout part = layout;  // panels are apart: as a matrix of its own
  part.rows = std::ssize(rows) / dtype_bytes(layout.dtype, layout.columns);
  part.total_bytes = std::ssize(panels);
  kernels::pack_panels(part, rows, 0, part.panels(), panels);
}

std::string packed_path(const std::string& folder, const std::string& model) {
  std::error_code failed;
  const auto whole = std::filesystem::weakly_canonical(model, failed);
  const std::string name = failed ? model : whole.string();
  return fmt::format("{}/{}-{:016x}.packed", folder, std::filesystem::path(name).stem().string(),
                     checksum64(bytes_of(name)));
}

std::optional<PackedFile> PackedFile::open(const std::string& folder, const std::string& model) {
  const auto identity = file_identity(model);
  if (!identity) return std::nullopt;
  const std::string path = packed_path(folder, model);
  auto file = MappedFile::open(path);
  if (!file) return std::nullopt;
  const auto header = header_of(file->bytes());
  if (!header || integer_of(*header, "version") != kernels::kPackedVersion ||
      text_of(*header, "identity") != *identity) {
    return std::nullopt;
  }
  PackedFile packed;
  for (const auto& tensor : (*header)["tensors"]) {
    if (!tensor.is_object()) return std::nullopt;
    const auto dtype = dtype_from_name(text_of(tensor, "dtype"));
    const Place place{dtype.value_or(DType::kF32), integer_of(tensor, "rows"),
                      integer_of(tensor, "columns"),
                      static_cast<std::size_t>(integer_of(tensor, "offset"))};
    const auto layout = kernels::packed_layout(place.dtype, place.rows, place.columns);
    const bool fits =
        dtype && layout && place.offset % kAlignment == 0 && place.offset <= file->bytes().size() &&
        static_cast<std::size_t>(layout->total_bytes) <= file->bytes().size() - place.offset;
    if (!fits) return std::nullopt;
    packed.places_.emplace(text_of(tensor, "name"), place);
  }
  packed.path_ = path;
  packed.file_ = *std::move(file);
  return packed;
}

std::optional<std::size_t> PackedFile::place_of(std::string_view name,
                                                const kernels::PackedLayout& layout,
                                                std::span<const std::byte> source) const {
  const auto found = places_.find(name);
  if (found == places_.end()) return std::nullopt;
  const Place& place = found->second;
  if (place.dtype != layout.dtype || place.rows != layout.rows || place.columns != layout.columns) {
    return std::nullopt;
  }
  std::vector<std::byte> first(static_cast<std::size_t>(layout.panel_bytes));
  kernels::pack_panels(layout, source, 0, 1, first);
  if (!std::ranges::equal(first, file_.bytes().subspan(place.offset, first.size()))) {
    return std::nullopt;
  }
  return place.offset;
}

std::span<const std::byte> PackedFile::find(std::string_view name,
                                            const kernels::PackedLayout& layout,
                                            std::span<const std::byte> source) const {
  const auto offset = place_of(name, layout, source);
  if (!offset) return {};
  const auto size = static_cast<std::size_t>(layout.total_bytes);
  file_.populate(*offset, size);
  return file_.bytes().subspan(*offset, size);
}

Result<bool> PackedFile::write(const std::string& folder, const std::string& model,
                               std::span<const Tensor> tensors) {
  const auto identity = file_identity(model);
  if (!identity) return identity.error();
  std::error_code failed;
  std::filesystem::create_directories(folder, failed);
  std::size_t total = 0;
  const auto size_of = [](const Tensor& tensor) {
    return static_cast<std::size_t>(tensor.layout.total_bytes);
  };
  for (const Tensor& tensor : tensors) total += aligned(size_of(tensor));
  const auto space = std::filesystem::space(folder, failed);
  if (failed || space.available / 4 < total) return false;
  nlohmann::ordered_json header{{"version", kernels::kPackedVersion},
                                {"identity", *identity},
                                {"tensors", nlohmann::ordered_json::array()}};
  // Offsets are behind a header whose size depends on them: room for all of their digits.
  const std::size_t room = 512 + tensors.size() * 256;
  std::size_t offset = aligned(kHeaderAt + room);
  for (const Tensor& tensor : tensors) {
    header["tensors"].push_back({{"name", tensor.name},
                                 {"dtype", dtype_name(tensor.layout.dtype)},
                                 {"rows", tensor.layout.rows},
                                 {"columns", tensor.layout.columns},
                                 {"offset", offset}});
    offset = aligned(offset + size_of(tensor));
  }
  const std::string text =
      header.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  if (text.size() > room) return false;  // names of hundreds of letters: not worth a file
  const std::uint64_t size = text.size();
  const std::string path = packed_path(folder, model);
  remove_leftovers(path);
  // Several processes may do this at once: each writes a file of its own, and the last one stays.
  const std::string own = fmt::format("{}.{}", path, ::getpid());
  const Status written = write_file_atomically(own, [&](const Append& append) -> Status {
    std::string start(kMagic);
    start.append(reinterpret_cast<const char*>(&size), sizeof(size));
    start += text;
    start.resize(aligned(kHeaderAt + room), '\0');
    HONE_RETURN_IF_ERROR(append(bytes_of(start)));
    const std::string padding(kAlignment, '\0');
    for (const Tensor& tensor : tensors) {
      HONE_RETURN_IF_ERROR(tensor.fill ? tensor.fill(append) : append(tensor.bytes));
      const std::size_t rest = aligned(size_of(tensor)) - size_of(tensor);
      if (rest > 0) HONE_RETURN_IF_ERROR(append(bytes_of(padding).first(rest)));
    }
    return {};
  });
  HONE_RETURN_IF_ERROR(written);
  std::filesystem::rename(own, path, failed);
  if (!failed) return true;
  std::filesystem::remove(own, failed);
  return Error{ErrorCode::kIo, "cannot put the file in its place", path, failed.message(), "", ""};
}

}  // namespace hone::engine

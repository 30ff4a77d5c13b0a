// Checkpoints: writing, checking, finding the last good one.
// SPDX-License-Identifier: Apache-2.0
#include "tune/checkpoint.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "base/checksum.h"
#include "base/descriptor.h"
#include "base/human.h"
#include "base/sha256.h"

namespace hone::tune {
namespace {

constexpr std::string_view kMagic = "HONECKP1";
constexpr std::size_t kHashDigits = 64;
constexpr std::size_t kHeaderAt = 80;  // behind magic, size and hash
constexpr std::size_t kAlignment = 64;
constexpr std::string_view kPrefix = "checkpoint-";
constexpr std::string_view kSuffix = ".hone";

std::size_t aligned(std::size_t offset) {
  return (offset + kAlignment - 1) / kAlignment * kAlignment;
}

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

std::string_view text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::string header_hash(std::string_view size_and_header) {
  Sha256 hash;
  hash.add(bytes_of(size_and_header));
  return hash.finish();
}

// Little endian, as base/checksum.cpp asserts of the machine.
std::string size_bytes(std::uint64_t size) {
  std::string bytes(sizeof(size), '\0');
  std::memcpy(bytes.data(), &size, sizeof(size));
  return bytes;
}

// Offsets depend on the header's size, and the header holds the offsets: they are counted from the
// first multiple of 64 behind the header.
std::string header_text(std::int64_t step, std::string_view metadata_json,
                        std::span<const CheckpointTensor> tensors) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  std::size_t offset = 0;
  for (const CheckpointTensor& tensor : tensors) {
    const auto seen = [&](std::span<const std::byte> part) {
      if (tensor.release) tensor.release(part);
    };
    list.push_back({{"name", tensor.name},
                    {"offset", offset},
                    {"bytes", tensor.bytes.size()},
                    {"xxh64", fmt::format("{:016x}", checksum64(tensor.bytes, seen))}});
    offset = aligned(offset + tensor.bytes.size());
  }
  const nlohmann::ordered_json header{
      {"step", step}, {"metadata", std::string(metadata_json)}, {"tensors", list}};
  return header.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

// What a full disk lacks is worth a number.
Error with_space(Error error, const std::string& folder, std::size_t needed) {
  struct statvfs disk {};
  if (error.code != ErrorCode::kIo || ::statvfs(folder.c_str(), &disk) != 0) return error;
  const std::uint64_t free = std::uint64_t{disk.f_bavail} * disk.f_frsize;
  error.found += fmt::format(" ({} free)", human_bytes(static_cast<std::int64_t>(free)));
  error.expected = fmt::format("{} for a checkpoint", human_bytes(static_cast<int64_t>(needed)));
  if (error.advice.empty()) error.advice = "make room there; earlier checkpoints are untouched";
  return error;
}

// A rename lasts once the folder is on the disk, too.
Status flush_folder(const std::string& folder) {
  const Descriptor opened{::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
  if (!opened.is_open()) return {};  // readable by others only: the file itself is safe
  const int result = ::fsync(opened.number);
  const int number = errno;
  if (result == 0 || number == EINVAL || number == EROFS) return {};  // not all systems can
  return Error{ErrorCode::kIo,
               "cannot flush the folder",
               folder,
               std::strerror(number),  // NOLINT(concurrency-mt-unsafe) glibc's is thread safe
               "",
               ""};
}

std::string folder_of(const std::string& path) {
  const std::string folder = std::filesystem::path(path).parent_path().string();
  return folder.empty() ? "." : folder;
}

Error damaged(std::string what, std::string found, std::string expected) {
  return Error{ErrorCode::kCorrupt,
               std::move(what),
               "",
               std::move(found),
               std::move(expected),
               "resume from an earlier checkpoint: the file was cut short or damaged"};
}

Error cut_short(std::size_t found, std::size_t expected) {
  return damaged("the checkpoint is cut short", fmt::format("{} bytes", found),
                 fmt::format("{} bytes", expected));
}

// The step of "checkpoint-120.hone"; -1 for other names.
std::int64_t step_of(std::string_view name) {
  if (!name.starts_with(kPrefix) || !name.ends_with(kSuffix)) return -1;
  if (name.size() <= kPrefix.size() + kSuffix.size()) return -1;
  name.remove_prefix(kPrefix.size());
  name.remove_suffix(kSuffix.size());
  std::int64_t step = -1;
  const auto [end, code] = std::from_chars(name.data(), name.data() + name.size(), step);
  const bool whole = code == std::errc() && end == name.data() + name.size();
  return whole && step >= 0 && std::to_string(step) == name ? step : -1;
}

// Latest first.
Result<std::vector<std::int64_t>> steps_in(const std::string& folder) {
  std::vector<std::int64_t> steps;
  std::error_code trouble;
  std::filesystem::directory_iterator at(folder, trouble);
  for (; !trouble && at != std::filesystem::directory_iterator(); at.increment(trouble)) {
    const std::int64_t step = step_of(at->path().filename().string());
    if (step >= 0) steps.push_back(step);
  }
  if (trouble) {
    return Error{ErrorCode::kNotFound,
                 "cannot read the folder of checkpoints",
                 folder,
                 trouble.message(),
                 "",
                 "check the path"};
  }
  std::ranges::sort(steps, std::greater<>());
  return steps;
}

// Of writers that were killed.
void remove_partial_files(const std::string& folder) {
  std::error_code ignored;
  std::vector<std::filesystem::path> found;
  std::filesystem::directory_iterator at(folder, ignored);
  for (; !ignored && at != std::filesystem::directory_iterator(); at.increment(ignored)) {
    constexpr std::string_view kPartial = ".partial";
    const std::string name = at->path().filename().string();
    if (!name.ends_with(kPartial)) continue;
    const auto whole = std::string_view(name).substr(0, name.size() - kPartial.size());
    if (step_of(whole) >= 0) found.push_back(at->path());
  }
  for (const auto& path : found) std::filesystem::remove(path, ignored);
}

Result<nlohmann::json> read_header(std::span<const std::byte> bytes, std::size_t& data_at) {
  if (bytes.size() < kMagic.size() || text_of(bytes.first(kMagic.size())) != kMagic) {
    return damaged("this is no checkpoint", "", "a file that begins with HONECKP1");
  }
  if (bytes.size() < kHeaderAt) return cut_short(bytes.size(), kHeaderAt);
  std::uint64_t size = 0;
  std::memcpy(&size, bytes.data() + kMagic.size(), sizeof(size));
  if (size > bytes.size() - kHeaderAt) {
    return damaged("the checkpoint is cut short", fmt::format("{} bytes", bytes.size()),
                   fmt::format("a header of {} bytes at {}", size, kHeaderAt));
  }
  const std::string_view hash = text_of(bytes.subspan(16, kHashDigits));
  const std::string_view header = text_of(bytes.subspan(kHeaderAt, size));
  if (header_hash(size_bytes(size) + std::string(header)) != hash) {
    return damaged("the checkpoint's header is damaged", "another SHA-256",
                   fmt::format("{}…", hash.substr(0, 16)));
  }
  data_at = aligned(kHeaderAt + size);
  auto json = nlohmann::json::parse(header, nullptr, false);
  const bool fits = json.is_object() && json.value("tensors", nlohmann::json()).is_array() &&
                    json.value("step", nlohmann::json()).is_number_integer() &&
                    json.value("metadata", nlohmann::json()).is_string();
  if (!fits) return damaged("the checkpoint's header is not understood", "", "step, metadata, …");
  return json;
}

// Zeros in [begin, end), which no checksum covers.
Status check_padding(std::span<const std::byte> bytes, std::size_t begin, std::size_t end) {
  if (end > bytes.size()) return cut_short(bytes.size(), end);
  for (std::size_t i = begin; i < end; ++i) {
    if (bytes[i] != std::byte{0}) {
      return damaged("the checkpoint is damaged between its tensors", fmt::format("byte {}", i),
                     "zero");
    }
  }
  return {};
}

struct Place {
  std::string name;
  std::size_t offset = 0;
  std::size_t bytes = 0;
  std::string checksum;
};

Result<Place> read_place(const nlohmann::json& entry) {
  const nlohmann::json none;
  const auto& object = entry.is_object() ? entry : nlohmann::json::object();
  const auto name = object.value("name", none);
  const auto offset = object.value("offset", none);
  const auto bytes = object.value("bytes", none);
  const auto checksum = object.value("xxh64", none);
  if (!name.is_string() || !offset.is_number_unsigned() || !bytes.is_number_unsigned() ||
      !checksum.is_string()) {
    return damaged("the checkpoint's header is not understood", entry.dump(),
                   "name, offset, bytes and xxh64 of a tensor");
  }
  return Place{name, offset, bytes, checksum};
}

}  // namespace

std::string checkpoint_path(const std::string& folder, std::int64_t step) {
  return fmt::format("{}/{}{}{}", folder, kPrefix, step, kSuffix);
}

Status write_checkpoint(const std::string& path, std::int64_t step, std::string_view metadata_json,
                        std::span<const CheckpointTensor> tensors) {
  std::set<std::string_view> names;
  for (const CheckpointTensor& tensor : tensors) {
    if (names.insert(tensor.name).second) continue;
    return Error{ErrorCode::kInternal,
                 "two tensors of a checkpoint have one name",
                 path,
                 fmt::format("'{}'", tensor.name),
                 "",
                 ""};
  }
  const std::string header = header_text(step, metadata_json, tensors);
  const std::string size = size_bytes(header.size());
  const std::string start = std::string(kMagic) + size + header_hash(size + header) + header;
  std::size_t needed = aligned(start.size());
  for (const CheckpointTensor& tensor : tensors) needed = aligned(needed) + tensor.bytes.size();
  const Status written = write_file_atomically(path, [&](const Append& append) -> Status {
    constexpr std::array<std::byte, kAlignment> kZeros{};
    std::size_t at = start.size();
    HONE_RETURN_IF_ERROR(append(bytes_of(start)));
    const auto pad = [&]() -> Status {
      const std::size_t count = aligned(at) - at;
      at += count;
      return append(std::span(kZeros).first(count));
    };
    HONE_RETURN_IF_ERROR(pad());
    for (const CheckpointTensor& tensor : tensors) {
      HONE_RETURN_IF_ERROR(pad());
      constexpr std::size_t kPart = std::size_t{4} << 20;
      for (std::size_t done = 0; done < tensor.bytes.size(); done += kPart) {
        const auto part = tensor.bytes.subspan(done, std::min(kPart, tensor.bytes.size() - done));
        HONE_RETURN_IF_ERROR(append(part));
        if (tensor.release) tensor.release(part);
      }
      at += tensor.bytes.size();
    }
    return {};
  });
  if (!written.ok()) return with_space(written.error(), folder_of(path), needed);
  return flush_folder(folder_of(path));
}

Result<Checkpoint> Checkpoint::open(const std::string& path) {
  auto file = MappedFile::open(path);
  if (!file) return file.error();
  Checkpoint checkpoint;
  checkpoint.file_ = *std::move(file);
  const std::span<const std::byte> bytes = checkpoint.file_.bytes();
  std::size_t data_at = 0;
  const auto header = read_header(bytes, data_at);
  if (!header) return header.error().in(path);
  checkpoint.step_ = (*header)["step"];
  checkpoint.metadata_ = (*header)["metadata"];
  std::uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, bytes.data() + kMagic.size(), sizeof(header_bytes));
  std::size_t end = kHeaderAt + header_bytes;  // of what is checked
  const auto fill = [&](std::size_t until) { return check_padding(bytes, end, until); };
  if (const Status padding = fill(data_at); !padding.ok()) return padding.error().in(path);
  end = data_at;
  for (const nlohmann::json& entry : (*header)["tensors"]) {
    const auto place = read_place(entry);
    if (!place) return place.error().in(path);
    // The header's hash was right, so that these are the writer's own numbers; one look all the
    // same, because whoever makes a hash can make numbers.
    const bool follows = place->offset == aligned(end) - data_at && place->bytes <= std::size_t{1}
                                                                                        << 48;
    if (!follows) {
      return damaged("a tensor lies where it cannot", place->name, "one after the other").in(path);
    }
    const std::size_t begin = aligned(end);
    if (begin + place->bytes > bytes.size()) {
      return cut_short(bytes.size(), begin + place->bytes).in(path);
    }
    if (const Status padding = fill(begin); !padding.ok()) return padding.error().in(path);
    const auto tensor = bytes.subspan(begin, place->bytes);
    const std::string found = fmt::format("{:016x}", checksum64(tensor));
    checkpoint.file_.release(begin, place->bytes);
    if (found != place->checksum) {
      return damaged(fmt::format("tensor '{}' of the checkpoint is damaged", place->name),
                     "checksum " + found, place->checksum)
          .in(path);
    }
    checkpoint.tensors_.push_back({place->name, tensor});
    end = begin + place->bytes;
  }
  if (end != bytes.size()) {
    return damaged("the checkpoint goes on behind its end", fmt::format("{} bytes", bytes.size()),
                   fmt::format("{}", end))
        .in(path);
  }
  return checkpoint;
}

Result<std::span<const std::byte>> Checkpoint::find(std::string_view name,
                                                    std::size_t bytes) const {
  for (const CheckpointTensor& tensor : tensors_) {
    if (tensor.name != name) continue;
    if (tensor.bytes.size() == bytes) return tensor.bytes;
    return Error{ErrorCode::kCorrupt,
                 fmt::format("'{}' of the checkpoint has another size", name),
                 path(),
                 fmt::format("{} bytes", tensor.bytes.size()),
                 fmt::format("{} bytes", bytes),
                 "resume with the model and the options that the run began with"};
  }
  return Error{ErrorCode::kCorrupt,
               fmt::format("'{}' is not in the checkpoint", name),
               path(),
               fmt::format("{} other tensors", tensors_.size()),
               "",
               "resume with the model and the options that the run began with"};
}

Result<CheckpointWriter> CheckpointWriter::open(const std::string& folder, int keep) {
  std::error_code trouble;
  std::filesystem::create_directories(folder, trouble);
  if (trouble) {
    return Error{ErrorCode::kIo,    "cannot make the folder for checkpoints", folder,
                 trouble.message(), "a folder that may be written to",        "choose another one"};
  }
  return CheckpointWriter(folder, std::max(keep, 1));
}

Result<std::string> CheckpointWriter::write(std::int64_t step, std::string_view metadata_json,
                                            std::span<const CheckpointTensor> tensors) {
  remove_partial_files(folder_);
  const std::string path = checkpoint_path(folder_, step);
  HONE_RETURN_IF_ERROR(write_checkpoint(path, step, metadata_json, tensors));
  const auto steps = steps_in(folder_);
  if (!steps) return steps.error();
  int kept = 0;
  for (const std::int64_t other : *steps) {
    if (other > step || ++kept <= keep_) continue;
    std::error_code ignored;  // an old file too many does no harm
    std::filesystem::remove(checkpoint_path(folder_, other), ignored);
  }
  return path;
}

Result<LatestCheckpoint> latest_checkpoint(const std::string& folder) {
  const auto steps = steps_in(folder);
  if (!steps) return steps.error();
  LatestCheckpoint latest;
  for (const std::int64_t step : *steps) {
    auto checkpoint = Checkpoint::open(checkpoint_path(folder, step));
    if (checkpoint) {
      latest.checkpoint = *std::move(checkpoint);
      break;
    }
    latest.skipped.push_back(checkpoint.error());
  }
  return latest;
}

}  // namespace hone::tune

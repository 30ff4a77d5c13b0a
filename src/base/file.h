// Files: a read-only mapping, whole-file reads, and writes that replace a file only when complete.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "base/status.h"

namespace hone {

// A whole file mapped read-only and shared with the page cache. Move-only; unmaps itself.
class MappedFile {
 public:
  static Result<MappedFile> open(const std::string& path);
  MappedFile() = default;
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::string& path() const { return path_; }

  // Tells the system that these bytes will not be read again soon: resident memory shrinks, a later
  // read faults them back in from the page cache.
  void release(std::size_t offset, std::size_t size) const;
  // These bytes will be read now: what is in the page cache becomes resident without a fault for
  // each page.
  void populate(std::size_t offset, std::size_t size) const;

 private:
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  std::string path_;
};

// Another text whenever the file's content may be another: device, inode, size and times, of which
// a program cannot set the last change. kIo for what is no regular file.
Result<std::string> file_identity(const std::string& path);

Result<std::string> read_file(const std::string& path);

// Writes through `path`.partial and renames, so that `path` is either the old file or the complete
// new one. `fill` is given an append function that reports the first failed write.
using Append = std::function<Status(std::span<const std::byte>)>;
Status write_file_atomically(const std::string& path,
                             const std::function<Status(const Append&)>& fill);
Status write_file_atomically(const std::string& path, std::string_view text);

}  // namespace hone

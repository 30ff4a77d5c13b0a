// Memory that lives in a file: what is not in use leaves the process, and the system may write it
// out.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "base/status.h"

namespace hone {

// A nameless file of a folder, mapped shared and writable, zeros at first; it is gone with the
// process, however that ends. Move-only.
class ScratchFile {
 public:
  // All of the space is taken at once: a disk that is too full says so here. Errors: kIo, and
  // kUnsupported for a folder that is in memory itself (tmpfs).
  static Result<ScratchFile> create(const std::string& folder, std::size_t bytes);
  ScratchFile() = default;
  ScratchFile(ScratchFile&& other) noexcept;
  ScratchFile& operator=(ScratchFile&& other) noexcept;
  ScratchFile(const ScratchFile&) = delete;
  ScratchFile& operator=(const ScratchFile&) = delete;
  ~ScratchFile();

  std::span<std::byte> bytes() const { return {data_, size_}; }

  // The pages that lie wholly within a part of it leave the process's resident memory, their
  // content stays in the file: the next access brings it back. Of another's memory: nothing
  // happens.
  void release(std::span<const std::byte> part) const;

 private:
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace hone

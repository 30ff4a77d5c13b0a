// SPDX-License-Identifier: Apache-2.0
#include "base/scratch_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "base/descriptor.h"
#include "base/human.h"

namespace hone {
namespace {

Error io_error(const char* what, const std::string& folder, int code) {
  return Error{ErrorCode::kIo, what, folder, std::strerror(code), "", ""};
}

// Some file systems know no nameless files: there a name is made and taken away.
int open_nameless(const std::string& folder) {
  const int number = ::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (number >= 0) return number;
  std::string pattern = folder + "/.scratch-XXXXXX";
  const int named = ::mkostemp(pattern.data(), O_CLOEXEC);
  if (named >= 0) ::unlink(pattern.c_str());
  return named;
}

}  // namespace

Result<ScratchFile> ScratchFile::create(const std::string& folder, std::size_t bytes) {
  struct statfs system {};
  if (::statfs(folder.c_str(), &system) != 0) {
    return io_error("cannot look at the folder", folder, errno);
  }
  if (system.f_type == TMPFS_MAGIC) {
    return Error{ErrorCode::kUnsupported,
                 "this folder is in memory itself, so nothing is saved by a file in it",
                 folder,
                 "tmpfs",
                 "a folder on a disk",
                 "name another folder"};
  }
  const Descriptor opened{open_nameless(folder)};  // the mapping keeps the file
  if (!opened.is_open()) return io_error("cannot make a file", folder, errno);
  ScratchFile file;
  const int full = bytes > 0 ? ::posix_fallocate(opened.number, 0, static_cast<off_t>(bytes)) : 0;
  if (full != 0) {
    Error error = io_error("there is no room for what is to lie in a file", folder, full);
    error.expected = fmt::format("{} free", human_bytes(static_cast<std::int64_t>(bytes)));
    return error;
  }
  void* address = bytes > 0
                      ? ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, opened.number, 0)
                      : nullptr;
  if (address == MAP_FAILED) return io_error("cannot map the file into memory", folder, errno);
  file.data_ = static_cast<std::byte*>(address);
  file.size_ = bytes;
  return file;
}

ScratchFile::ScratchFile(ScratchFile&& other) noexcept { *this = std::move(other); }

ScratchFile& ScratchFile::operator=(ScratchFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

ScratchFile::~ScratchFile() {
  if (data_ != nullptr) ::munmap(data_, size_);
}

// MADV_DONTNEED of a shared mapping drops this process's view alone: written pages stay in the page
// cache, whence the system writes them to the file when it needs the memory (madvise(2)).
void ScratchFile::release(std::span<const std::byte> part) const {
  if (data_ == nullptr || part.data() < data_ || part.data() + part.size() > data_ + size_) return;
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  const auto offset = static_cast<std::size_t>(part.data() - data_);
  const std::size_t first = (offset + page - 1) / page * page;
  const std::size_t last = (offset + part.size()) / page * page;
  if (first < last) ::madvise(data_ + first, last - first, MADV_DONTNEED);
}

}  // namespace hone

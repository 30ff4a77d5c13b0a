// SPDX-License-Identifier: Apache-2.0
#include "base/file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "base/descriptor.h"

namespace hone {
namespace {

Error io_error(const std::string& what, const std::string& path) {
  const int number = errno;
  Error error;
  error.code = number == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo;
  error.what = what;
  error.where = path;
  error.found = std::strerror(number);  // NOLINT(concurrency-mt-unsafe) glibc's is thread safe
  if (number == ENOENT) error.advice = "check the path";
  if (number == ENOSPC) error.advice = "make room on the disk and run it again";
  return error;
}

}  // namespace

Result<MappedFile> MappedFile::open(const std::string& path) {
  const Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (file.number < 0) return io_error("cannot open the file", path);
  struct stat status {};
  if (::fstat(file.number, &status) != 0) return io_error("cannot look at the file", path);
  if (!S_ISREG(status.st_mode)) {
    return Error{ErrorCode::kInvalidArgument, "this is not a regular file", path, "", "a file", ""};
  }
  MappedFile mapped;
  mapped.path_ = path;
  mapped.size_ = static_cast<std::size_t>(status.st_size);
  if (mapped.size_ > 0) {
    void* address = ::mmap(nullptr, mapped.size_, PROT_READ, MAP_SHARED, file.number, 0);
    if (address == MAP_FAILED) {
      mapped.size_ = 0;
      return io_error("cannot map the file into memory", path);
    }
    mapped.data_ = static_cast<const std::byte*>(address);
  }
  return mapped;
}

MappedFile::MappedFile(MappedFile&& other) noexcept { *this = std::move(other); }

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(path_, other.path_);
  return *this;
}

MappedFile::~MappedFile() {
  // The const_cast is munmap's C signature; nothing is written.
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

void MappedFile::release(std::size_t offset, std::size_t size) const {
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  const std::size_t first = (offset + page - 1) / page * page;
  const std::size_t last = std::min(offset + size, size_) / page * page;
  if (first >= last) return;
  ::madvise(const_cast<std::byte*>(data_ + first), last - first, MADV_DONTNEED);
}

void MappedFile::populate(std::size_t offset, std::size_t size) const {
#if defined(MADV_POPULATE_READ)
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  const std::size_t first = offset / page * page;
  const std::size_t last = std::min(offset + size, size_);
  // Older systems refuse; the pages come one by one then.
  if (first < last) {
    ::madvise(const_cast<std::byte*>(data_ + first), last - first, MADV_POPULATE_READ);
  }
#else
  (void)offset;
  (void)size;
#endif
}

Result<std::string> file_identity(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return io_error("cannot look at the file", path);
  if (!S_ISREG(status.st_mode)) {
    return Error{ErrorCode::kIo, "this is not a regular file", path, "", "a file", ""};
  }
  return fmt::format("{}:{}:{}:{}.{:09}:{}.{:09}", status.st_dev, status.st_ino, status.st_size,
                     status.st_mtim.tv_sec, status.st_mtim.tv_nsec, status.st_ctim.tv_sec,
                     status.st_ctim.tv_nsec);
}

Result<std::string> read_file(const std::string& path) {
  auto mapped = MappedFile::open(path);
  if (!mapped) return mapped.error();
  const auto bytes = mapped->bytes();
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

Status write_file_atomically(const std::string& path,
                             const std::function<Status(const Append&)>& fill) {
  const std::string partial = path + ".partial";
  Descriptor file{::open(partial.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)};
  if (file.number < 0) return io_error("cannot create the file", partial);
  const Append append = [&](std::span<const std::byte> bytes) -> Status {
    while (!bytes.empty()) {
      const ssize_t written = ::write(file.number, bytes.data(), bytes.size());
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) return io_error("cannot write the file", partial);
      bytes = bytes.subspan(static_cast<std::size_t>(written));
    }
    return {};
  };
  Status status = fill(append);
  if (status.ok() && ::fsync(file.number) != 0) status = io_error("cannot flush the file", partial);
  if (status.ok() && std::rename(partial.c_str(), path.c_str()) != 0) {
    status = io_error("cannot put the file in its place", path);
  }
  if (!status.ok()) ::unlink(partial.c_str());
  return status;
}

Status write_file_atomically(const std::string& path, std::string_view text) {
  return write_file_atomically(path, [&](const Append& append) {
    return append(std::as_bytes(std::span(text.data(), text.size())));
  });
}

}  // namespace hone

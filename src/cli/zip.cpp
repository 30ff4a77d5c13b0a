// After the format's specification (APPNOTE.TXT 6.3.10, sections 4.3.7, 4.3.12, 4.3.16).
// SPDX-License-Identifier: Apache-2.0
#include "cli/zip.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <memory>
#include <span>

namespace hone::cli {
namespace {

constexpr std::uint32_t kEndSignature = 0x06054b50;
constexpr std::uint32_t kEntrySignature = 0x02014b50;
constexpr std::uint32_t kLocalSignature = 0x04034b50;
constexpr std::size_t kEndBytes = 22;
constexpr std::size_t kEntryBytes = 46;
constexpr std::size_t kLocalBytes = 30;

std::uint64_t number_at(std::span<const std::byte> bytes, std::size_t at, std::size_t size) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < size; ++i) {
    value |= std::to_integer<std::uint64_t>(bytes[at + i]) << (8 * i);
  }
  return value;
}

Error broken(const MappedFile& archive, std::size_t at, const char* expected) {
  return Error{ErrorCode::kCorrupt,
               "the archive is broken",
               fmt::format("{}, byte {}", archive.path(), at),
               "",
               expected,
               "download it again"};
}

}  // namespace

Result<std::vector<ZipMember>> zip_members(const MappedFile& archive) {
  const auto bytes = archive.bytes();
  // The end record is followed by a comment of at most 65,535 bytes.
  std::size_t end = bytes.size();
  const std::size_t first =
      bytes.size() > kEndBytes + 65'535 ? bytes.size() - kEndBytes - 65'535 : 0;
  for (std::size_t at = bytes.size() < kEndBytes ? 0 : bytes.size() - kEndBytes + 1;
       at-- > first;) {
    if (bytes.size() < kEndBytes) break;
    if (number_at(bytes, at, 4) != kEndSignature) continue;
    end = at;
    break;
  }
  if (end == bytes.size()) return broken(archive, bytes.size(), "a zip archive's end record");
  const std::uint64_t count = number_at(bytes, end + 10, 2);
  std::uint64_t at = number_at(bytes, end + 16, 4);
  if (count == 0xFFFF || at == 0xFFFFFFFF) {
    return Error{ErrorCode::kUnsupported,
                 "the archive is in the zip64 format",
                 archive.path(),
                 "",
                 "below 4 GB",
                 ""};
  }
  std::vector<ZipMember> members;
  for (std::uint64_t i = 0; i < count; ++i) {
    if (at + kEntryBytes > end || number_at(bytes, at, 4) != kEntrySignature) {
      return broken(archive, at, "a directory entry");
    }
    const std::uint64_t name_bytes = number_at(bytes, at + 28, 2);
    const std::uint64_t more = number_at(bytes, at + 30, 2) + number_at(bytes, at + 32, 2);
    if (at + kEntryBytes + name_bytes + more > end) return broken(archive, at, "a whole entry");
    ZipMember member;
    member.method = static_cast<std::uint16_t>(number_at(bytes, at + 10, 2));
    member.checksum = static_cast<std::uint32_t>(number_at(bytes, at + 16, 4));
    member.packed_bytes = number_at(bytes, at + 20, 4);
    member.bytes = number_at(bytes, at + 24, 4);
    member.header = number_at(bytes, at + 42, 4);
    member.name.assign(reinterpret_cast<const char*>(bytes.data() + at + kEntryBytes), name_bytes);
    members.push_back(std::move(member));
    at += kEntryBytes + name_bytes + more;
  }
  return members;
}

Status unzip(const MappedFile& archive, const ZipMember& member, const Append& append) {
  const auto all = archive.bytes();
  const std::uint64_t at = member.header;
  if (at + kLocalBytes > all.size() || number_at(all, at, 4) != kLocalSignature) {
    return broken(archive, at, "a member's header");
  }
  const std::uint64_t begin =
      at + kLocalBytes + number_at(all, at + 26, 2) + number_at(all, at + 28, 2);
  if (begin > all.size() || member.packed_bytes > all.size() - begin) {
    return broken(archive, at, "the member's bytes inside of the file");
  }
  auto packed = all.subspan(begin, member.packed_bytes);
  std::uint64_t written = 0;
  uLong checksum = crc32(0, nullptr, 0);
  const auto put = [&](std::span<const std::byte> bytes) -> Status {
    written += bytes.size();
    if (written > member.bytes) return broken(archive, begin, "as many bytes as promised");
    checksum = crc32(checksum, reinterpret_cast<const Bytef*>(bytes.data()),
                     static_cast<uInt>(bytes.size()));
    return append(bytes);
  };
  constexpr std::size_t kPiece = 1 << 20;
  if (member.method == 0) {
    for (std::size_t from = 0; from < packed.size(); from += kPiece) {
      HONE_RETURN_IF_ERROR(put(packed.subspan(from, std::min(kPiece, packed.size() - from))));
    }
  } else if (member.method == 8) {
    z_stream stream{};
    if (inflateInit2(&stream, -MAX_WBITS) != Z_OK) {
      return Error{ErrorCode::kOutOfMemory, "no memory to unpack with", archive.path(), "", "", ""};
    }
    const std::unique_ptr<z_stream, int (*)(z_stream*)> closing(&stream, inflateEnd);
    std::vector<std::byte> out(kPiece);
    for (int code = Z_OK; code != Z_STREAM_END;) {
      if (stream.avail_in == 0) {
        const std::size_t piece = std::min(kPiece, packed.size());
        // zlib's interface lacks const; it does not write here.
        stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(packed.data()));
        stream.avail_in = static_cast<uInt>(piece);
        packed = packed.subspan(piece);
      }
      stream.next_out = reinterpret_cast<Bytef*>(out.data());
      stream.avail_out = static_cast<uInt>(out.size());
      code = inflate(&stream, Z_NO_FLUSH);
      if (code != Z_OK && code != Z_STREAM_END) return broken(archive, begin, "deflated bytes");
      HONE_RETURN_IF_ERROR(put(std::span(out).first(out.size() - stream.avail_out)));
    }
  } else {
    return Error{ErrorCode::kUnsupported, "the archive is packed in a way hone does not know",
                 archive.path(),          fmt::format("method {}", member.method),
                 "stored or deflated",    ""};
  }
  if (written != member.bytes || checksum != member.checksum) {
    return broken(archive, begin, "bytes of the promised count and checksum");
  }
  return {};
}

}  // namespace hone::cli

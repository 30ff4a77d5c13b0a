// Zip archives (wheels are such): the list of members, and one member's bytes as a stream.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/status.h"

namespace hone::cli {

struct ZipMember {
  std::string name;  // "folder/file"
  std::uint64_t packed_bytes = 0;
  std::uint64_t bytes = 0;
  std::uint32_t checksum = 0;  // CRC-32 of the unpacked bytes
  std::uint16_t method = 0;    // 0 stored, 8 deflated
  std::uint64_t header = 0;    // place of the local header
};

// kCorrupt with the byte for what breaks the format; kUnsupported for archives beyond 4 GB (zip64).
Result<std::vector<ZipMember>> zip_members(const MappedFile& archive);

// Appends the member's bytes; kCorrupt if they are not what the archive promised, kUnsupported for
// other methods, and errors of `append`.
Status unzip(const MappedFile& archive, const ZipMember& member, const Append& append);

}  // namespace hone::cli

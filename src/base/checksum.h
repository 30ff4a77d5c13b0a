// XXH64, a fast 64-bit checksum of bytes: finds damage, not malice (base/sha256.h does).
// After the published description of the algorithm (Collet, "xxHash fast digest algorithm", 0.1.1).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/function_ref.h"

namespace hone {

std::uint64_t checksum64(std::span<const std::byte> bytes);
// The same; `seen` is told each part, of some megabytes, that will not be read again.
std::uint64_t checksum64(std::span<const std::byte> bytes,
                         FunctionRef<void(std::span<const std::byte>)> seen);

}  // namespace hone

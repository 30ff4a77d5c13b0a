// XXH64 with seed 0.
// SPDX-License-Identifier: Apache-2.0
#include "base/checksum.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

namespace hone {
namespace {

// The description's five primes, and its names for the steps.
constexpr std::uint64_t kPrime1 = 0x9E3779B185EBCA87;
constexpr std::uint64_t kPrime2 = 0xC2B2AE3D27D4EB4F;
constexpr std::uint64_t kPrime3 = 0x165667B19E3779F9;
constexpr std::uint64_t kPrime4 = 0x85EBCA77C2B2AE63;
constexpr std::uint64_t kPrime5 = 0x27D4EB2F165667C5;

static_assert(std::endian::native == std::endian::little, "words are read as they lie");

template <typename Word>
std::uint64_t read(std::span<const std::byte> bytes) {
  Word word;
  std::memcpy(&word, bytes.data(), sizeof(word));
  return word;
}

std::uint64_t round(std::uint64_t accumulator, std::uint64_t lane) {
  return std::rotl(accumulator + lane * kPrime2, 31) * kPrime1;
}

}  // namespace

std::uint64_t checksum64(std::span<const std::byte> bytes) {
  const auto nothing = [](std::span<const std::byte>) {};
  return checksum64(bytes, nothing);
}

std::uint64_t checksum64(std::span<const std::byte> bytes,
                         FunctionRef<void(std::span<const std::byte>)> seen) {
  constexpr std::size_t kPart = std::size_t{4} << 20;
  std::uint64_t hash = kPrime5;
  const std::size_t total = bytes.size();
  if (bytes.size() >= 32) {
    std::array<std::uint64_t, 4> lanes = {kPrime1 + kPrime2, kPrime2, 0, 0 - kPrime1};
    while (bytes.size() >= 32) {
      const std::span<const std::byte> part = bytes.first(std::min(kPart, bytes.size() / 32 * 32));
      for (std::span<const std::byte> at = part; !at.empty(); at = at.subspan(32)) {
        for (std::size_t i = 0; i < 4; ++i) {
          lanes[i] = round(lanes[i], read<std::uint64_t>(at.subspan(i * 8)));
        }
      }
      seen(part);
      bytes = bytes.subspan(part.size());
    }
    hash = std::rotl(lanes[0], 1) + std::rotl(lanes[1], 7) + std::rotl(lanes[2], 12) +
           std::rotl(lanes[3], 18);
    for (const std::uint64_t lane : lanes) hash = (hash ^ round(0, lane)) * kPrime1 + kPrime4;
  }
  hash += total;
  for (; bytes.size() >= 8; bytes = bytes.subspan(8)) {
    hash = std::rotl(hash ^ round(0, read<std::uint64_t>(bytes)), 27) * kPrime1 + kPrime4;
  }
  if (bytes.size() >= 4) {
    hash = std::rotl(hash ^ (read<std::uint32_t>(bytes) * kPrime1), 23) * kPrime2 + kPrime3;
    bytes = bytes.subspan(4);
  }
  for (const std::byte byte : bytes) {
    hash = std::rotl(hash ^ (std::to_integer<std::uint64_t>(byte) * kPrime5), 11) * kPrime1;
  }
  hash = (hash ^ (hash >> 33)) * kPrime2;
  hash = (hash ^ (hash >> 29)) * kPrime3;
  return hash ^ (hash >> 32);
}

}  // namespace hone

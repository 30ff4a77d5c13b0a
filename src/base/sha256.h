// SHA-256 (FIPS 180-4), for checking what was downloaded.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace hone {

class Sha256 {
 public:
  void add(std::span<const std::byte> bytes);
  // 64 lower case hexadecimal digits; the object is used up.
  std::string finish();

 private:
  void compress(const std::byte* block);

  std::array<std::uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                         0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<std::byte, 64> block_{};
  std::size_t held_ = 0;  // bytes of block_
  std::uint64_t total_ = 0;
};

std::string sha256(std::span<const std::byte> bytes);

}  // namespace hone

// XXH64 against values that other implementations give.
// SPDX-License-Identifier: Apache-2.0
#include "base/checksum.h"

#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

namespace hone {
namespace {

std::uint64_t of(std::string_view text) {
  return checksum64(std::as_bytes(std::span(text.data(), text.size())));
}

TEST(Checksum, KnownValues) {
  EXPECT_EQ(of(""), 0xEF46DB3751D8E999u);
  EXPECT_EQ(of("a"), 0xD24EC4F1A98C6E5Bu);
  EXPECT_EQ(of("abc"), 0x44BC2CF5AD770999u);
  EXPECT_EQ(of("Nobody inspects the spammish repetition"), 0xFBCEA83C8A378BF1u);
}

TEST(Checksum, EveryBitCounts) {
  std::vector<std::byte> bytes(77, std::byte{0x5A});  // lanes, words, a half word and bytes
  const std::uint64_t before = checksum64(bytes);
  for (std::size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    const auto flip = std::byte{1} << (bit % 8);
    bytes[bit / 8] ^= flip;
    EXPECT_NE(checksum64(bytes), before) << "bit " << bit;
    bytes[bit / 8] ^= flip;
  }
  EXPECT_NE(checksum64(std::span(bytes).first(76)), before);
}

}  // namespace
}  // namespace hone

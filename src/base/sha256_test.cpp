// SHA-256 on the standard's own vectors, however the bytes are cut; names that are near each other.
// SPDX-License-Identifier: Apache-2.0
#include "base/sha256.h"

#include <gtest/gtest.h>

#include <array>

#include "base/nearest.h"

namespace hone {
namespace {

std::string hash_of(const std::string& text) { return sha256(std::as_bytes(std::span(text))); }

TEST(Sha256, StandardVectors) {  // FIPS 180-4's examples
  EXPECT_EQ(hash_of("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(hash_of(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(hash_of("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(hash_of(std::string(1'000'000, 'a')),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, AnyPiecesGiveTheSame) {
  std::string text;
  for (int i = 0; i < 300; ++i) text += static_cast<char>(i * 7);
  const auto bytes = std::as_bytes(std::span(text));
  for (std::size_t piece = 1; piece < 200; piece += 9) {
    Sha256 hash;
    for (std::size_t at = 0; at < bytes.size(); at += piece) {
      hash.add(bytes.subspan(at, std::min(piece, bytes.size() - at)));
    }
    EXPECT_EQ(hash.finish(), hash_of(text)) << piece;
  }
}

TEST(Nearest, FindsWhatWasMeant) {
  const std::array<std::string_view, 4> names = {"fetch", "inspect", "tokenize", "quantize"};
  EXPECT_EQ(nearest("fecth", names), "fetch");
  EXPECT_EQ(nearest("tokenise", names), "tokenize");
  EXPECT_EQ(nearest("insp", names), "inspect");
  EXPECT_EQ(nearest("serve", names), "");
  EXPECT_EQ(nearest("", names), "");
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3u);
  EXPECT_EQ(edit_distance("ab", "ba"), 1u);
}

}  // namespace
}  // namespace hone

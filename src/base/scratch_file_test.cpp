// Memory in a file: it keeps its content, and leaves the process when it is told to.
// SPDX-License-Identifier: Apache-2.0
#include "base/scratch_file.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "base/system.h"

namespace hone {
namespace {

constexpr std::size_t kBytes = std::size_t{64} << 20;

TEST(ScratchFile, LeavesResidentMemoryAndKeepsItsContent) {
  const std::string folder = std::filesystem::current_path().string();
  auto made = ScratchFile::create(folder, kBytes);
  if (!made && made.error().code == ErrorCode::kUnsupported) GTEST_SKIP() << made.error().text();
  ASSERT_TRUE(made.ok()) << made.error().text();
  const ScratchFile file = *std::move(made);
  const std::span<std::byte> bytes = file.bytes();
  ASSERT_EQ(bytes.size(), kBytes);
  EXPECT_EQ(std::ranges::count(bytes.first(4096), std::byte{0}), 4096);
  for (std::size_t i = 0; i < kBytes; ++i) bytes[i] = static_cast<std::byte>(i * 31 >> 8);
  const std::int64_t full = resident_memory().current;
  file.release(bytes);
  const std::int64_t released = resident_memory().current;
  EXPECT_LT(released, full - static_cast<std::int64_t>(kBytes) / 4 * 3);
  for (std::size_t i = 0; i < kBytes; i += 511) {
    ASSERT_EQ(bytes[i], static_cast<std::byte>(i * 31 >> 8)) << i;
  }
  // A part that is not of the file is let be.
  std::vector<std::byte> other(8192, std::byte{7});
  file.release(other);
  EXPECT_EQ(std::ranges::count(other, std::byte{7}), 8192);
}

TEST(ScratchFile, LeavesNoFileBehind) {
  const auto folder = std::filesystem::current_path() / "scratch_file_test";
  std::filesystem::create_directories(folder);
  {
    const auto made = ScratchFile::create(folder.string(), 4096);
    if (!made) GTEST_SKIP() << made.error().text();
    EXPECT_TRUE(std::filesystem::is_empty(folder));
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder));
  std::filesystem::remove_all(folder);
}

TEST(ScratchFile, WhatCannotBeIsSaid) {
  EXPECT_EQ(ScratchFile::create("/no/such/folder", 1).error().code, ErrorCode::kIo);
  // More than any disk has.
  const auto large =
      ScratchFile::create(std::filesystem::current_path().string(), std::size_t{1} << 60);
  EXPECT_FALSE(large.ok());
  EXPECT_EQ(ScratchFile().bytes().size(), 0U);
  if (std::filesystem::exists("/dev/shm")) {
    EXPECT_FALSE(ScratchFile::create("/dev/shm", 4096).ok());
  }
}

}  // namespace
}  // namespace hone

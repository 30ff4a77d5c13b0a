// Files: what is mapped is what was written, and a failed write leaves the old file as it was.
// SPDX-License-Identifier: Apache-2.0
#include "base/file.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

namespace hone {
namespace {

namespace fs = std::filesystem;

class FileTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "hone-file-XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override { fs::remove_all(folder_); }
  std::string path(const std::string& name) const { return folder_ + "/" + name; }

  std::string folder_;
};

TEST_F(FileTest, WritesReadsAndReplaces) {
  ASSERT_TRUE(write_file_atomically(path("a"), "first").ok());
  auto mapped = MappedFile::open(path("a"));
  ASSERT_TRUE(mapped.ok());
  ASSERT_TRUE(write_file_atomically(path("a"), "second").ok());
  // The mapping still holds the old bytes: the new file is another one.
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(mapped->bytes().data()), 5), "first");
  EXPECT_EQ(*read_file(path("a")), "second");
  EXPECT_FALSE(fs::exists(path("a.partial")));
}

TEST_F(FileTest, FailedFillKeepsTheOldFile) {
  ASSERT_TRUE(write_file_atomically(path("a"), "old").ok());
  const Status status = write_file_atomically(path("a"), [](const Append& append) -> Status {
    const std::string half = "half of the n";
    HONE_RETURN_IF_ERROR(append(std::as_bytes(std::span(half))));
    return Error{ErrorCode::kOutOfMemory, "no more", "", "", "", ""};
  });
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, ErrorCode::kOutOfMemory);
  EXPECT_EQ(*read_file(path("a")), "old");
  EXPECT_FALSE(fs::exists(path("a.partial")));
}

TEST_F(FileTest, FullDiskIsAnErrorAndNotACrash) {
  if (!fs::exists("/dev/full")) GTEST_SKIP() << "no /dev/full here";
  fs::create_symlink("/dev/full", path("a.partial"));
  const Status status = write_file_atomically(path("a"), "bytes");
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, ErrorCode::kIo);
  EXPECT_NE(status.error().text().find("a.partial"), std::string::npos);
  EXPECT_FALSE(fs::exists(path("a")));
}

TEST_F(FileTest, EmptyMissingAndFolder) {
  ASSERT_TRUE(write_file_atomically(path("empty"), "").ok());
  EXPECT_EQ(*read_file(path("empty")), "");
  const auto missing = read_file(path("missing"));
  ASSERT_FALSE(missing.ok());
  EXPECT_EQ(missing.error().code, ErrorCode::kNotFound);
  EXPECT_EQ(missing.error().where, path("missing"));
  const auto folder = read_file(folder_);
  ASSERT_FALSE(folder.ok());
  EXPECT_EQ(folder.error().code, ErrorCode::kInvalidArgument);
  EXPECT_FALSE(write_file_atomically(path("no/such/folder"), "x").ok());
}

TEST_F(FileTest, MovesAndReleases) {
  const std::string text(100'000, 'x');
  ASSERT_TRUE(write_file_atomically(path("a"), text).ok());
  auto opened = MappedFile::open(path("a"));
  ASSERT_TRUE(opened.ok());
  MappedFile mapped = std::move(*opened);
  const MappedFile moved = std::move(mapped);
  ASSERT_EQ(moved.bytes().size(), text.size());
  moved.release(10, 99'990);
  moved.release(99'999, 1'000'000);                  // past the end: nothing
  EXPECT_EQ(moved.bytes()[50'000], std::byte{'x'});  // comes back from the file
}

TEST(Status, ErrorsReadAsSentences) {
  const Error error{ErrorCode::kCorrupt, "bad magic", "byte 0", "GGML", "GGUF", "convert it"};
  EXPECT_EQ(error.in("m.gguf").text(),
            "bad magic\n  where:    m.gguf, byte 0\n  found:    GGML\n  expected: GGUF\n"
            "  try:      convert it");
  const Error bare{ErrorCode::kInternal, "what", "", "", "", ""};
  EXPECT_EQ(bare.text(), "what");
  EXPECT_EQ(bare.in("here").where, "here");
  EXPECT_FALSE(Status(bare).ok());
  EXPECT_TRUE(Status().ok());
}

}  // namespace
}  // namespace hone

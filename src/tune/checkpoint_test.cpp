// Checkpoints: every bit checked, and the last good one survives whatever happens to the next.
// SPDX-License-Identifier: Apache-2.0
#include "tune/checkpoint.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <set>
#include <thread>

#include "base/random.h"
#include "tune/scratch_folder.h"

namespace hone::tune {
namespace {

std::vector<float> numbers(std::size_t count, std::int64_t step) {
  std::vector<float> values(count);
  std::iota(values.begin(), values.end(), static_cast<float>(step));
  return values;
}

std::span<const std::byte> bytes(const std::vector<float>& values) {
  return std::as_bytes(std::span(values));
}

std::vector<CheckpointTensor> tensors_of(const std::vector<float>& a, const std::vector<float>& b) {
  return {{"layer.0.a", bytes(a)}, {"empty", {}}, {"layer.0.b", bytes(b).first(b.size() * 4 - 1)}};
}

std::set<std::string> files_in(const std::string& folder) {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    names.insert(entry.path().filename().string());
  }
  return names;
}

bool same(std::span<const std::byte> a, std::span<const std::byte> b) {
  return std::ranges::equal(a, b);
}

// Without flushing: thousands of broken files, which nobody needs to last.
void write_quickly(const std::string& path, std::string_view text) {
  std::ofstream(path, std::ios::binary) << text;
}

// Of a child of fork(): 0 if all is well.
int exit_code(pid_t child) {
  int status = 0;
  if (waitpid(child, &status, 0) != child) return -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

class CheckpointTest : public testing::Test {
 protected:
  ScratchFolder folder_;
  std::vector<float> a_ = numbers(1000, 1);
  std::vector<float> b_ = numbers(33, 2);
};

TEST_F(CheckpointTest, WhatIsWrittenIsRead) {
  const std::string path = folder_ / "x.hone";
  const std::string metadata = R"({"seed": 7, "name": "ü\u0000"})";
  ASSERT_TRUE(write_checkpoint(path, 120, metadata, tensors_of(a_, b_)).ok());
  const auto read = Checkpoint::open(path);
  ASSERT_TRUE(read) << read.error().text();
  EXPECT_EQ(read->step(), 120);
  EXPECT_EQ(read->metadata_json(), metadata);
  ASSERT_EQ(read->tensors().size(), 3u);
  const auto a = read->find("layer.0.a", 4000);
  ASSERT_TRUE(a) << a.error().text();
  EXPECT_TRUE(same(*a, bytes(a_)));
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(a->data()) % 64, 0u);
  EXPECT_TRUE(same(*read->find("layer.0.b", 131), bytes(b_).first(131)));
  EXPECT_TRUE(read->find("empty", 0));
  EXPECT_EQ(read->find("layer.0.b", 132).error().code, ErrorCode::kCorrupt);
  EXPECT_EQ(read->find("layer.1.b", 132).error().code, ErrorCode::kCorrupt);
}

TEST_F(CheckpointTest, NothingButMetadata) {
  ASSERT_TRUE(write_checkpoint(folder_ / "x.hone", 0, "", {}).ok());
  const auto read = Checkpoint::open(folder_ / "x.hone");
  ASSERT_TRUE(read) << read.error().text();
  EXPECT_TRUE(read->tensors().empty());
}

TEST_F(CheckpointTest, NamesMustDiffer) {
  const CheckpointTensor twice[] = {{"a", bytes(a_)}, {"a", bytes(b_)}};
  EXPECT_FALSE(write_checkpoint(folder_ / "x.hone", 1, "{}", twice).ok());
  EXPECT_TRUE(files_in(folder_.path()).empty());
}

TEST_F(CheckpointTest, EveryFlippedBitIsFound) {
  const std::string path = folder_ / "x.hone";
  const std::vector<float> small = numbers(40, 3);
  ASSERT_TRUE(write_checkpoint(path, 5, R"({"a":1})", tensors_of(small, b_)).ok());
  const std::string whole = *read_file(path);
  const std::string broken_path = folder_ / "broken.hone";
  for (std::size_t at = 0; at < whole.size(); ++at) {
    std::string broken = whole;
    broken[at] = static_cast<char>(broken[at] ^ (1 << (at % 8)));
    write_quickly(broken_path, broken);
    const auto read = Checkpoint::open(broken_path);
    ASSERT_FALSE(read) << "byte " << at;
    EXPECT_EQ(read.error().code, ErrorCode::kCorrupt);
    EXPECT_NE(read.error().where.find("broken.hone"), std::string::npos);
  }
}

TEST_F(CheckpointTest, EveryCutIsFound) {
  const std::string path = folder_ / "x.hone";
  const std::vector<float> small = numbers(40, 3);
  ASSERT_TRUE(write_checkpoint(path, 5, "{}", tensors_of(small, b_)).ok());
  const std::string whole = *read_file(path);
  for (std::size_t size = 0; size < whole.size(); ++size) {
    write_quickly(path, std::string_view(whole).substr(0, size));
    const auto read = Checkpoint::open(path);
    ASSERT_FALSE(read) << size << " bytes";
    EXPECT_EQ(read.error().code, ErrorCode::kCorrupt);
  }
  ASSERT_TRUE(write_file_atomically(path, whole + std::string(64, '\0')).ok());
  EXPECT_FALSE(Checkpoint::open(path));
}

TEST_F(CheckpointTest, TheLastTwoStay) {
  auto writer = CheckpointWriter::open(folder_ / "run/deep");
  ASSERT_TRUE(writer) << writer.error().text();
  for (const std::int64_t step : {5, 50, 9, 100}) {
    // 9 comes after 50 when a run went on from an earlier checkpoint.
    const auto written = writer->write(step, "{}", tensors_of(a_, b_));
    ASSERT_TRUE(written) << written.error().text();
    EXPECT_EQ(*written, checkpoint_path(folder_ / "run/deep", step));
  }
  const std::set<std::string> expected = {"checkpoint-50.hone", "checkpoint-100.hone"};
  EXPECT_EQ(files_in(folder_ / "run/deep"), expected);
  EXPECT_EQ(latest_checkpoint(folder_ / "run/deep")->checkpoint->step(), 100);
}

TEST_F(CheckpointTest, AFileOfALaterStepCountsForNothing) {
  auto writer = CheckpointWriter::open(folder_.path());
  ASSERT_TRUE(writer);
  ASSERT_TRUE(writer->write(10, "{}", tensors_of(a_, b_)));
  ASSERT_TRUE(write_file_atomically(checkpoint_path(folder_.path(), 30), "broken").ok());
  ASSERT_TRUE(writer->write(15, "{}", tensors_of(a_, b_)));
  const std::set<std::string> expected = {"checkpoint-10.hone", "checkpoint-15.hone",
                                          "checkpoint-30.hone"};
  EXPECT_EQ(files_in(folder_.path()), expected);
}

TEST_F(CheckpointTest, BrokenOnesAreSkippedAndNamed) {
  auto writer = CheckpointWriter::open(folder_.path(), 9);
  ASSERT_TRUE(writer);
  for (const std::int64_t step : {1, 2, 3}) {
    ASSERT_TRUE(writer->write(step, "{}", tensors_of(a_, b_)));
  }
  std::string third = *read_file(checkpoint_path(folder_.path(), 3));
  ASSERT_TRUE(write_file_atomically(checkpoint_path(folder_.path(), 3),
                                    std::string_view(third).substr(0, 3000))
                  .ok());
  for (const char* name : {"checkpoint-.hone", "checkpoint-x.hone", "checkpoint-07.hone",
                           "checkpoint-99.hone.partial", "notes.txt"}) {
    ASSERT_TRUE(write_file_atomically(folder_ / name, "not to be looked at").ok());
  }
  const auto latest = latest_checkpoint(folder_.path());
  ASSERT_TRUE(latest) << latest.error().text();
  ASSERT_TRUE(latest->checkpoint.has_value());
  EXPECT_EQ(latest->checkpoint->step(), 2);
  ASSERT_EQ(latest->skipped.size(), 1u);
  EXPECT_NE(latest->skipped[0].where.find("checkpoint-3.hone"), std::string::npos);
  // What a killed writer left goes with the next write; other files do not.
  ASSERT_TRUE(writer->write(4, "{}", tensors_of(a_, b_)));
  EXPECT_EQ(files_in(folder_.path()).count("checkpoint-99.hone.partial"), 0u);
  EXPECT_EQ(files_in(folder_.path()).count("notes.txt"), 1u);
}

TEST_F(CheckpointTest, FoldersThatAreNotThere) {
  const auto none = latest_checkpoint(folder_ / "none");
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().code, ErrorCode::kNotFound);
  const auto empty = latest_checkpoint(folder_.path());
  ASSERT_TRUE(empty);
  EXPECT_FALSE(empty->checkpoint.has_value());
  ASSERT_TRUE(write_file_atomically(folder_ / "file", "x").ok());
  EXPECT_FALSE(CheckpointWriter::open(folder_ / "file"));
  EXPECT_EQ(Checkpoint::open(folder_ / "none.hone").error().code, ErrorCode::kNotFound);
}

// Writes that stop in the middle because a file may not grow further: what a full disk does, on
// every machine.
TEST_F(CheckpointTest, AWriteThatFailsLeavesTheLastGoodOne) {
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    auto writer = CheckpointWriter::open(folder_.path());
    if (!writer || !writer->write(1, "{}", tensors_of(a_, b_))) _exit(1);
    signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{20000, 20000};
    if (setrlimit(RLIMIT_FSIZE, &limit) != 0) _exit(2);
    const std::vector<float> large = numbers(100'000, 2);
    const auto refused = writer->write(2, "{}", tensors_of(large, b_));
    if (refused || refused.error().code != ErrorCode::kIo) _exit(3);
    const auto latest = latest_checkpoint(folder_.path());
    if (!latest || !latest->checkpoint || latest->checkpoint->step() != 1) _exit(4);
    if (files_in(folder_.path()).size() != 1) _exit(5);  // no half of a file
    _exit(writer->write(3, "{}", tensors_of(a_, b_)) ? 0 : 6);
  }
  EXPECT_EQ(exit_code(child), 0);
  EXPECT_EQ(latest_checkpoint(folder_.path())->checkpoint->step(), 3);
}

TEST_F(CheckpointTest, AFullDiskLeavesTheLastGoodOne) {
  constexpr int kCannotMount = 77;
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    // A small file system that only this child sees.
    if (unshare(CLONE_NEWNS) != 0 ||
        mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        mount("tmpfs", folder_.path().c_str(), "tmpfs", 0, "size=256k") != 0) {
      _exit(kCannotMount);
    }
    auto writer = CheckpointWriter::open(folder_.path());
    const std::vector<float> half = numbers(30'000, 1);  // 120 kB: two fit, three do not
    if (!writer || !writer->write(1, "{}", tensors_of(half, b_))) _exit(1);
    if (!writer->write(2, "{}", tensors_of(half, b_))) _exit(2);
    const auto refused = writer->write(3, "{}", tensors_of(half, b_));
    if (refused || refused.error().code != ErrorCode::kIo) _exit(3);
    if (refused.error().found.find("free") == std::string::npos) _exit(4);
    const auto latest = latest_checkpoint(folder_.path());
    if (!latest || !latest->checkpoint || latest->checkpoint->step() != 2) _exit(5);
    _exit(files_in(folder_.path()).size() == 2 ? 0 : 6);
  }
  const int code = exit_code(child);
  if (code == kCannotMount) GTEST_SKIP() << "a small file system cannot be mounted here";
  EXPECT_EQ(code, 0);
}

// kill -9 at moments drawn by chance: there is always a whole checkpoint, and it holds what its
// step says.
TEST_F(CheckpointTest, KilledAtAnyMoment) {
  const std::size_t count = 200'000;
  Random chance(11);
  std::int64_t before = -1;
  for (int round = 0; round < 12; ++round) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      auto writer = CheckpointWriter::open(folder_.path());
      for (std::int64_t step = before + 1; writer; ++step) {
        const std::vector<float> values = numbers(count, step);
        if (!writer->write(step, "{}", tensors_of(values, b_))) _exit(1);
      }
      _exit(1);
    }
    // At least one checkpoint; then some time within the writing of the next ones.
    while (true) {
      const auto latest = latest_checkpoint(folder_.path());
      if (latest && latest->checkpoint && latest->checkpoint->step() > before) break;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    std::this_thread::sleep_for(std::chrono::microseconds(chance.below(20'000)));
    kill(child, SIGKILL);
    EXPECT_EQ(exit_code(child), -1) << "a write failed before the kill";
    const auto latest = latest_checkpoint(folder_.path());
    ASSERT_TRUE(latest && latest->checkpoint);
    EXPECT_TRUE(latest->skipped.empty());
    const std::int64_t step = latest->checkpoint->step();
    EXPECT_GT(step, before);
    const auto a = latest->checkpoint->find("layer.0.a", count * 4);
    ASSERT_TRUE(a) << a.error().text();
    EXPECT_TRUE(same(*a, bytes(numbers(count, step))));
    before = step;
  }
}

}  // namespace
}  // namespace hone::tune

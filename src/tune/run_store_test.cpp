// Run records: what is written is read, by any process, in any order of events.
// SPDX-License-Identifier: Apache-2.0
#include "tune/run_store.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <set>

#include "base/file.h"
#include "tune/scratch_folder.h"
#include "tune/sqlite.h"

namespace hone::tune {
namespace {

const RunInfo kInfo{"tune",
                    "model.gguf",
                    "abc",
                    "data.jsonl",
                    "def",
                    "lora",
                    R"({"rank":16})",
                    std::numeric_limits<std::uint64_t>::max()};

class RunStoreTest : public testing::Test {
 protected:
  RunStore store() {
    auto opened = RunStore::open(path_);
    EXPECT_TRUE(opened) << opened.error().text();
    return *std::move(opened);
  }
  static std::string begin(RunStore& store, const RunInfo& info = kInfo) {
    const auto id = store.begin(info);
    EXPECT_TRUE(id) << id.error().text();
    return *id;
  }
  ScratchFolder folder_;
  std::string path_ = folder_ / "deep/er/runs.sqlite";
};

TEST_F(RunStoreTest, ARunFromItsStartToItsEnd) {
  std::string id;
  {
    RunStore writer = store();
    id = begin(writer);
    ASSERT_EQ(id.size(), 15u) << id;  // 2026-11-25-a1b2
    const auto running = writer.find(id);
    ASSERT_TRUE(running) << running.error().text();
    EXPECT_EQ(running->status, kRunning);
    EXPECT_TRUE(running->alive);
    EXPECT_EQ(running->ended, 0);
    const Metric metrics[] = {{"loss", 2.5}, {"tokens_per_second", 640}};
    ASSERT_TRUE(writer.log(id, 1, metrics).ok());
    ASSERT_TRUE(writer.attach(id, "output", "adapter.gguf").ok());
    ASSERT_TRUE(writer.attach(id, "checkpoint", "a").ok());
    ASSERT_TRUE(writer.attach(id, "checkpoint", "b").ok());
    ASSERT_TRUE(writer.finish(id, kFinished, "all steps").ok());
  }
  auto reader = RunStore::open_present(path_);
  ASSERT_TRUE(reader) << reader.error().text();
  const auto run = reader->find("last");
  ASSERT_TRUE(run) << run.error().text();
  EXPECT_EQ(run->id, id);
  EXPECT_EQ(run->info.verb, "tune");
  EXPECT_EQ(run->info.model, "model.gguf");
  EXPECT_EQ(run->info.model_hash, "abc");
  EXPECT_EQ(run->info.data, "data.jsonl");
  EXPECT_EQ(run->info.data_hash, "def");
  EXPECT_EQ(run->info.method, "lora");
  EXPECT_EQ(run->info.arguments_json, R"({"rank":16})");
  EXPECT_EQ(run->info.seed, kInfo.seed);
  EXPECT_NE(run->versions_json.find("\"hone\""), std::string::npos);
  EXPECT_EQ(run->status, kFinished);
  EXPECT_EQ(run->note, "all steps");
  EXPECT_FALSE(run->alive);
  EXPECT_GT(run->started, 1.7e9);
  EXPECT_GE(run->ended, run->started);
  const std::vector<std::pair<std::string, std::string>> attached = {{"output", "adapter.gguf"},
                                                                     {"checkpoint", "b"}};
  EXPECT_EQ(run->attached, attached);
}

TEST_F(RunStoreTest, MetricsInOrderOfStepsTheLastWordWins) {
  RunStore writer = store();
  const std::string id = begin(writer);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double infinity = std::numeric_limits<double>::infinity();
  const std::pair<std::int64_t, double> logged[] = {
      {3, nan}, {1, 4.0}, {2, infinity}, {10, 1.0}, {1, 5.0}};
  for (const auto& [step, value] : logged) {
    const Metric metric[] = {{"loss", value}};
    ASSERT_TRUE(writer.log(id, step, metric).ok());
  }
  const auto rows = writer.metrics(id, "loss");
  ASSERT_TRUE(rows) << rows.error().text();
  ASSERT_EQ(rows->size(), 4u);
  EXPECT_EQ((*rows)[0].step, 1);
  EXPECT_EQ((*rows)[0].value, 5.0);
  EXPECT_EQ((*rows)[1].value, infinity);
  EXPECT_TRUE(std::isnan((*rows)[2].value));
  EXPECT_EQ((*rows)[3].step, 10);
  const auto summaries = writer.summaries(id);
  ASSERT_TRUE(summaries) << summaries.error().text();
  ASSERT_EQ(summaries->size(), 1u);
  EXPECT_EQ((*summaries)[0].name, "loss");
  EXPECT_EQ((*summaries)[0].count, 4);
  EXPECT_EQ((*summaries)[0].first.value, 5.0);
  EXPECT_EQ((*summaries)[0].last.step, 10);
  EXPECT_EQ((*summaries)[0].least, 1.0);
  EXPECT_EQ((*summaries)[0].most, 5.0);
  const auto none = writer.metrics(id, "accuracy");
  ASSERT_TRUE(none);
  EXPECT_TRUE(none->empty());
}

TEST_F(RunStoreTest, FindsByBeginningByLastDigitsAndByAge) {
  RunStore writer = store();
  std::vector<std::string> ids;
  for (int i = 0; i < 3; ++i) ids.push_back(begin(writer));
  EXPECT_EQ(writer.find("last")->id, ids[2]);
  EXPECT_EQ(writer.find("last~0")->id, ids[2]);
  EXPECT_EQ(writer.find("last~2")->id, ids[0]);
  EXPECT_EQ(writer.find(ids[1])->id, ids[1]);
  EXPECT_EQ(writer.find(ids[1].substr(11))->id, ids[1]);
  for (const char* wrong : {"last~3", "last~", "last~-1", "last~x", "", "%", "zzzz", "2026-99"}) {
    const auto found = writer.find(wrong);
    ASSERT_FALSE(found) << wrong;
    EXPECT_EQ(found.error().code, ErrorCode::kNotFound) << wrong;
  }
  const auto ambiguous = writer.find(ids[0].substr(0, 5));
  ASSERT_FALSE(ambiguous);
  EXPECT_EQ(ambiguous.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(ambiguous.error().found.find(ids[1]), std::string::npos);
}

TEST_F(RunStoreTest, ListsTheNewestFirstAndFilters) {
  RunStore writer = store();
  const std::string first = begin(writer);
  RunInfo other = kInfo;
  other.verb = "eval";
  const std::string second = begin(writer, other);
  ASSERT_TRUE(writer.finish(second, kFailed, "no memory").ok());
  const auto all = writer.list();
  ASSERT_TRUE(all);
  ASSERT_EQ(all->size(), 2u);
  EXPECT_EQ((*all)[0].id, second);
  EXPECT_EQ(writer.list({.verb = "tune", .status = "", .most = 0})->front().id, first);
  EXPECT_EQ(writer.list({.verb = "", .status = "failed", .most = 0})->size(), 1u);
  EXPECT_EQ(writer.list({.verb = "", .status = "", .most = 1})->size(), 1u);
}

TEST_F(RunStoreTest, MisuseIsAnError) {
  RunStore writer = store();
  const Metric metric[] = {{"loss", 1}};
  EXPECT_EQ(writer.log("nobody", 1, metric).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(writer.attach("nobody", "a", "b").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(writer.finish("nobody", kFinished).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(writer.metrics("nobody", "loss").error().code, ErrorCode::kNotFound);
  const std::string id = begin(writer);
  EXPECT_EQ(writer.finish(id, "fine").error().code, ErrorCode::kInvalidArgument);
}

// A child that is killed leaves its row, which says that the process is gone; another goes on.
TEST_F(RunStoreTest, AKilledProcessIsSeenAndItsRunResumed) {
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    auto writer = RunStore::open(path_);
    const auto id = writer ? writer->begin(kInfo) : Result<std::string>(writer.error());
    const Metric metric[] = {{"loss", 3}};
    if (id && writer->log(*id, 7, metric).ok()) kill(getpid(), SIGKILL);
    _exit(1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));
  RunStore reader = store();
  const auto run = reader.find("last");
  ASSERT_TRUE(run) << run.error().text();
  EXPECT_EQ(run->status, kRunning);
  EXPECT_FALSE(run->alive);
  EXPECT_EQ(reader.metrics(run->id, "loss")->size(), 1u);
  ASSERT_TRUE(reader.resume(run->id).ok());
  EXPECT_TRUE(reader.find(run->id)->alive);
}

TEST_F(RunStoreTest, ProcessesWriteAtTheSameTime) {
  constexpr int kProcesses = 4;
  constexpr int kSteps = 50;
  std::vector<pid_t> children;
  for (int i = 0; i < kProcesses; ++i) {
    children.push_back(fork());
    if (children.back() != 0) continue;
    auto writer = RunStore::open(path_);  // all of them make the file at once
    if (!writer) _exit(1);
    const auto id = writer->begin(kInfo);
    if (!id) _exit(2);
    for (int step = 0; step < kSteps; ++step) {
      const Metric metric[] = {{"loss", step}};
      if (!writer->log(*id, step, metric).ok()) _exit(3);
    }
    _exit(writer->finish(*id, kFinished).ok() ? 0 : 4);
  }
  for (const pid_t child : children) {
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  }
  RunStore reader = store();
  const auto runs = reader.list();
  ASSERT_TRUE(runs);
  ASSERT_EQ(runs->size(), static_cast<std::size_t>(kProcesses));
  std::set<std::string> ids;
  for (const RunRow& run : *runs) {
    ids.insert(run.id);
    EXPECT_EQ(reader.metrics(run.id, "loss")->size(), static_cast<std::size_t>(kSteps));
  }
  EXPECT_EQ(ids.size(), static_cast<std::size_t>(kProcesses));
}

TEST_F(RunStoreTest, AFileThatAnotherProcessHoldsIsNamed) {
  RunStore writer = store();
  auto holder = Database::open(path_, false);
  ASSERT_TRUE(holder);
  auto hold = Transaction::begin(*holder);
  ASSERT_TRUE(hold) << hold.error().text();
  const auto refused = writer.begin(kInfo);  // after the time that it waits
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kIo);
  EXPECT_NE(refused.error().what.find("another process"), std::string::npos);
  ASSERT_TRUE(hold->commit().ok());
  EXPECT_TRUE(writer.begin(kInfo));
}

TEST_F(RunStoreTest, FilesThatAreNotOursAreRefused) {
  const auto absent = RunStore::open_present(folder_ / "none.sqlite");
  ASSERT_FALSE(absent);
  EXPECT_EQ(absent.error().code, ErrorCode::kNotFound);

  const std::string text = folder_ / "text.sqlite";
  std::ofstream(text) << std::string(4096, 'x');
  const auto no_database = RunStore::open(text);
  ASSERT_FALSE(no_database);
  EXPECT_EQ(no_database.error().code, ErrorCode::kCorrupt);

  const std::string other = folder_ / "other.sqlite";
  ASSERT_TRUE(Database::open(other, true)->execute("CREATE TABLE songs (title TEXT)").ok());
  const auto not_ours = RunStore::open(other);
  ASSERT_FALSE(not_ours);
  EXPECT_EQ(not_ours.error().code, ErrorCode::kInvalidArgument);

  const std::string newer = folder_ / "newer.sqlite";
  { ASSERT_TRUE(RunStore::open(newer)); }
  ASSERT_TRUE(Database::open(newer, false)->execute("PRAGMA user_version = 99").ok());
  const auto too_new = RunStore::open(newer);
  ASSERT_FALSE(too_new);
  EXPECT_EQ(too_new.error().code, ErrorCode::kUnsupported);
  EXPECT_NE(too_new.error().found.find("99"), std::string::npos);

  EXPECT_FALSE(RunStore::open(""));
  EXPECT_FALSE(RunStore::open(folder_.path()));         // a folder
  EXPECT_FALSE(RunStore::open(text + "/runs.sqlite"));  // a folder that is a file
}

TEST_F(RunStoreTest, DamageIsAnErrorNotACrash) {
  {
    RunStore writer = store();
    const std::string id = begin(writer);
    for (int step = 0; step < 2000; ++step) {
      const Metric metric[] = {{"loss", step}};
      ASSERT_TRUE(writer.log(id, step, metric).ok());
    }
  }
  const auto whole = read_file(path_);
  ASSERT_TRUE(whole);
  ASSERT_GT(whole->size(), 16384u);
  std::string broken = *whole;
  std::fill(broken.begin() + 4096, broken.begin() + 16384, '\x55');
  ASSERT_TRUE(write_file_atomically(path_, broken).ok());
  auto reader = RunStore::open(path_);
  Status status;
  if (!reader) {
    status = reader.error();
  } else if (auto runs = reader->list(); !runs) {
    status = runs.error();
  }
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, ErrorCode::kCorrupt) << status.error().text();
}

TEST_F(RunStoreTest, HashesOfFilesAndFolders) {
  RunStore writer = store();
  const std::string file = folder_ / "data.txt";
  std::ofstream(file) << "abc";
  // FIPS 180-4's example.
  EXPECT_EQ(*writer.hash_of(file),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  std::ofstream(file) << "abd";  // as long, a moment later
  EXPECT_NE(*writer.hash_of(file),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  // An old file is remembered, until its time changes.
  const timespec old[] = {{1'700'000'000, 0}, {1'700'000'000, 0}};
  ASSERT_EQ(utimensat(AT_FDCWD, file.c_str(), old, 0), 0);
  const std::string remembered = *writer.hash_of(file);
  std::ofstream(file) << "xyz";
  ASSERT_EQ(utimensat(AT_FDCWD, file.c_str(), old, 0), 0);
  EXPECT_EQ(*writer.hash_of(file), remembered);
  const timespec later[] = {{1'700'000'001, 0}, {1'700'000'001, 0}};
  ASSERT_EQ(utimensat(AT_FDCWD, file.c_str(), later, 0), 0);
  EXPECT_NE(*writer.hash_of(file), remembered);
  EXPECT_EQ(writer.hash_of(folder_ / "none").error().code, ErrorCode::kNotFound);
  const std::string before = *writer.hash_of(folder_.path());
  std::ofstream(folder_ / "more.txt") << "x";
  EXPECT_NE(*writer.hash_of(folder_.path()), before);
}

TEST(RunsPath, FollowsTheXdgRules) {
  const auto with = [](const char* data, const char* home) {
    data == nullptr ? unsetenv("XDG_DATA_HOME") : setenv("XDG_DATA_HOME", data, 1);
    home == nullptr ? unsetenv("HOME") : setenv("HOME", home, 1);
    return default_runs_path();
  };
  const char* home_before = getenv("HOME");
  const std::string home = home_before == nullptr ? "/" : home_before;
  EXPECT_EQ(with("/data", "/home/x"), "/data/hone/runs.sqlite");
  EXPECT_EQ(with("relative", "/home/x"), "/home/x/.local/share/hone/runs.sqlite");
  EXPECT_EQ(with(nullptr, "/home/x"), "/home/x/.local/share/hone/runs.sqlite");
  EXPECT_EQ(with(nullptr, nullptr), "");
  setenv("HOME", home.c_str(), 1);
}

}  // namespace
}  // namespace hone::tune

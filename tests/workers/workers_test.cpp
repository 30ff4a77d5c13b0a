// Ranks of mpirun: the same bits on all of them, and a clear error within seconds when one of them
// dies, stops or loses step. The program starts itself under mpirun.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <bit>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <thread>

#include "../support/command.h"
#include "base/checksum.h"
#include "tune/workers.h"

namespace hone::tune {
namespace {

std::string plugin() { return std::string(HONE_BINARY_DIR) + "/libhone_mpi.so"; }

int say(const std::string& text) {
  // One write a line, so that lines of several ranks do not mix.
  const std::string line = text + "\n";
  (void)!::write(STDOUT_FILENO, line.data(), line.size());
  return 0;
}

int fail(const Error& error) {
  std::string text = error.text();
  for (char& c : text) c = c == '\n' ? ' ' : c;
  say("STOPPED " + text);
  return 1;
}

// Numbers that no other rank, step or place has; some of them no numbers at all.
double number_of(int rank, int step, int place) {
  if (place == 2) return std::bit_cast<double>(0x7ff8dead00000000u + static_cast<unsigned>(rank));
  return std::sin(1e3 * rank + 10.0 * step + place) * std::pow(10.0, 37 * (place - 1));
}

// Every rank: gathers of different counts, a broadcast, and what it had at the end as one digest.
int exchange(Workers& workers) {
  std::uint64_t digest = 0;
  for (int step = 0; step < 20; ++step) {
    std::vector<double> mine;
    const Range share = share_of(7, workers);
    for (std::int64_t i = share.begin; i < share.end; ++i) {
      mine.push_back(number_of(static_cast<int>(i), step, static_cast<int>(i % 3)));
    }
    const auto all = workers.gather(mine);
    if (!all) return fail(all.error());
    std::vector<double> expected;
    for (int i = 0; i < 7; ++i) expected.push_back(number_of(i, step, i % 3));
    if (all->size() != 7 || std::memcmp(all->data(), expected.data(), 7 * sizeof(double)) != 0) {
      return say("WRONG"), 1;
    }
    digest = digest * 31 + checksum64(std::as_bytes(std::span(*all)));
    std::vector<double> shared(5, static_cast<double>(workers.rank()));
    const int root = step % workers.size();
    const Status sent = workers.broadcast(std::as_writable_bytes(std::span(shared)), root);
    if (!sent.ok()) return fail(sent.error());
    if (shared != std::vector<double>(5, static_cast<double>(root))) return say("WRONG"), 1;
  }
  const Status met = workers.barrier();
  if (!met.ok()) return fail(met.error());
  const Status same = check_same(workers, "the numbers", digest);
  if (!same.ok()) return fail(same.error());
  return say(fmt::format("RANK {} OF {} DIGEST {:016x}", workers.rank(), workers.size(), digest));
}

// In the fifth step the last rank does what `how` says.
int trouble(Workers& workers, std::string_view how) {
  for (int step = 0; step < 10; ++step) {
    if (step == 5 && workers.rank() == workers.size() - 1) {
      if (how == "killed") ::raise(SIGKILL);
      if (how == "stops") return say("LEAVING"), 1;
      if (how == "stuck") {
        for (;;) std::this_thread::sleep_for(std::chrono::seconds(1));
      }
      if (how == "loses-step") {
        const Status status = workers.barrier();
        return status.ok() ? 0 : fail(status.error());
      }
    }
    if (how == "diverges") {
      const std::uint64_t digest = step == 5 && workers.rank() == 1 ? 2 : 1;
      const Status same = check_same(workers, "the adapters", digest);
      if (!same.ok()) return fail(same.error());
    }
    const double mine = step;
    const auto all = workers.gather(std::span(&mine, 1));
    if (!all) return fail(all.error());
  }
  return say("DONE");
}

int run_rank(std::string_view how) {
  // mpirun ends the others when one dies: they take the second that it gives them.
  ::signal(SIGTERM, SIG_IGN);
  WorkersOptions options;
  options.plugin = plugin();
  if (how == "stuck") options.timeout_seconds = 1;
  auto workers = join_workers(options);
  if (!workers) return fail(workers.error());
  return how == "exchange" ? exchange(**workers) : trouble(**workers, how);
}

struct Outcome {
  testing_commands::Finished finished;
  double seconds = 0;
  int count(std::string_view text) const {
    int found = 0;
    for (std::size_t at = 0; (at = finished.output.find(text, at)) != std::string::npos; ++at) {
      ++found;
    }
    return found;
  }
};

Outcome mpirun(int ranks, const std::string& how) {
  const auto start = std::chrono::steady_clock::now();
  Outcome out;
  out.finished = testing_commands::run(
      {"env", "OMPI_ALLOW_RUN_AS_ROOT=1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1", "timeout", "60",
       "mpirun", "--oversubscribe", "-n", std::to_string(ranks),
       std::filesystem::read_symlink("/proc/self/exe").string(), "--rank", how});
  out.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return out;
}

class WorkersTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (testing_commands::run({"mpirun", "--version"}).status != 0) {
      GTEST_SKIP() << "mpirun is absent: install openmpi-bin";
    }
    if (!std::filesystem::exists(plugin())) {
      GTEST_SKIP() << plugin() << " is absent: install libopenmpi-dev and build again";
    }
  }
};

TEST(AloneTest, GathersItsOwn) {
  const auto workers = join_workers();
  ASSERT_TRUE(workers.ok());
  EXPECT_EQ((*workers)->size(), 1);
  const std::vector<double> mine{1, -0.0, 3};
  const auto all = (*workers)->gather(mine);
  ASSERT_TRUE(all.ok());
  EXPECT_EQ(*all, mine);
  EXPECT_TRUE(check_same(**workers, "nothing", 7).ok());
  EXPECT_EQ(share_of(5, **workers).end, 5);
}

TEST_F(WorkersTest, AllRanksGatherTheSameBits) {
  std::string digest;
  for (const int ranks : {1, 2, 4}) {
    const Outcome out = mpirun(ranks, "exchange");
    ASSERT_EQ(out.finished.status, 0) << out.finished.output;
    EXPECT_EQ(out.count(fmt::format(" OF {} DIGEST ", ranks)), ranks) << out.finished.output;
    // Whoever makes them, the numbers of all are the same.
    const std::string found =
        out.finished.output.substr(out.finished.output.find("DIGEST ") + 7, 16);
    if (digest.empty()) digest = found;
    EXPECT_EQ(out.count(digest), ranks) << out.finished.output;
  }
}

TEST_F(WorkersTest, OthersHearThatOneWasKilled) {
  const Outcome out = mpirun(4, "killed");
  EXPECT_NE(out.finished.status, 0);
  // mpirun ends all others as soon as it sees the signal: some may have no time left to say so.
  EXPECT_GE(out.count("STOPPED"), 1) << out.finished.output;
  EXPECT_EQ(out.count("rank 3 (process "), out.count("STOPPED")) << out.finished.output;
  EXPECT_EQ(out.count("DONE"), 0);
  EXPECT_LT(out.seconds, 30);
}

TEST_F(WorkersTest, OthersHearThatOneStopped) {
  const Outcome out = mpirun(4, "stops");
  EXPECT_NE(out.finished.status, 0);
  EXPECT_EQ(out.count("LEAVING"), 1);
  EXPECT_EQ(out.count("rank 3 stopped before the others"), 3) << out.finished.output;
  EXPECT_LT(out.seconds, 30);
}

TEST_F(WorkersTest, AStuckRankIsWaitedForOnlySoLong) {
  const Outcome out = mpirun(2, "stuck");
  EXPECT_NE(out.finished.status, 0);
  EXPECT_EQ(out.count("did not come within 1 s"), 1) << out.finished.output;
  EXPECT_LT(out.seconds, 30);
}

TEST_F(WorkersTest, RanksThatLoseStepAreTold) {
  const Outcome out = mpirun(2, "loses-step");
  EXPECT_NE(out.finished.status, 0);
  EXPECT_EQ(out.count("the ranks are not doing the same"), 2) << out.finished.output;
}

TEST_F(WorkersTest, DivergedRanksAreTold) {
  const Outcome out = mpirun(4, "diverges");
  EXPECT_NE(out.finished.status, 0);
  EXPECT_EQ(out.count("the ranks have diverged: the adapters differ"), 4) << out.finished.output;
  EXPECT_EQ(out.count("on rank 1"), 4) << out.finished.output;
}

}  // namespace
}  // namespace hone::tune

int main(int argc, char** argv) {
  if (argc == 3 && std::string_view(argv[1]) == "--rank") return hone::tune::run_rank(argv[2]);
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}

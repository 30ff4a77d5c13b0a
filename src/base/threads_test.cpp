// The thread pool: every body runs once, barriers hold, nothing hangs with more threads than cores.
// SPDX-License-Identifier: Apache-2.0
#include "base/threads.h"

#include <gtest/gtest.h>

#include <chrono>
#include <numeric>
#include <string>
#include <vector>

namespace hone {
namespace {

class ThreadsTest : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Sizes, ThreadsTest, testing::Values(1, 2, 3, 4, 5, 8, 13));

TEST_P(ThreadsTest, RunsEveryBodyOnceAndIsReusable) {
  ThreadPool pool(GetParam());
  ASSERT_EQ(pool.size(), GetParam());
  std::vector<std::int64_t> counts(static_cast<std::size_t>(pool.size()) * 16);
  std::int64_t caller_only = 0;
  const auto caller = std::this_thread::get_id();
  constexpr int kRuns = 2000;
  for (int run = 0; run < kRuns; ++run) {
    pool.run([&](int thread) {
      ++counts[static_cast<std::size_t>(thread) * 16];  // plain, on purpose: TSan looks on
      if (thread == 0 && std::this_thread::get_id() == caller) ++caller_only;
    });
  }
  EXPECT_EQ(caller_only, kRuns);
  for (int t = 0; t < pool.size(); ++t) EXPECT_EQ(counts[static_cast<std::size_t>(t) * 16], kRuns);
}

// Each phase, thread t writes what t+1 reads in the next one: a barrier that lets one through too
// early gives a wrong number.
TEST_P(ThreadsTest, BarrierSeparatesPhases) {
  ThreadPool pool(GetParam());
  const int threads = pool.size();
  const int phases = threads <= 2 ? 100'000 : 4'000;
  std::vector<int> even(static_cast<std::size_t>(threads), 0);
  std::vector<int> odd(static_cast<std::size_t>(threads), 0);
  std::atomic<int> wrong{0};
  pool.run([&](int thread) {
    for (int phase = 1; phase <= phases; ++phase) {
      auto& write = phase % 2 == 0 ? even : odd;
      const auto& read = phase % 2 == 0 ? odd : even;
      const int neighbour = (thread + 1) % threads;
      if (read[static_cast<std::size_t>(neighbour)] != phase - 1) ++wrong;
      write[static_cast<std::size_t>(thread)] = phase;
      pool.barrier().arrive_and_wait(thread);
    }
  });
  EXPECT_EQ(wrong.load(), 0);
}

TEST(Threads, SleepersWakeUp) {
  // No spinning at all: every wait goes through the sleeping path.
  ThreadPool pool(4, SpinTimes{std::chrono::nanoseconds{0}, std::chrono::nanoseconds{0}});
  std::atomic<int> sum{0};
  for (int run = 0; run < 500; ++run) {
    pool.run([&](int thread) {
      pool.barrier().arrive_and_wait(thread);
      sum += thread;
      pool.barrier().arrive_and_wait(thread);
    });
  }
  EXPECT_EQ(sum.load(), 500 * (1 + 2 + 3));
}

TEST(Threads, LateThreadsFindOthersAsleep) {
  ThreadPool pool(2);
  int value = 0;
  int seen = 0;
  for (int late = 0; late < 2; ++late) {
    pool.run([&](int thread) {
      if (thread == late) {
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
        value = 7 + late;
      }
      pool.barrier().arrive_and_wait(thread);
      if (thread != late) seen = value;
    });
    EXPECT_EQ(seen, 7 + late);
    std::this_thread::sleep_for(std::chrono::milliseconds(2));  // workers fall asleep, too
  }
}

TEST(Threads, EndsWhileIdleAtAnyMoment) {
  for (int wait_us : {0, 10, 300}) {
    ThreadPool unused(3);
    ThreadPool used(2);
    used.run([](int) {});
    std::this_thread::sleep_for(std::chrono::microseconds(wait_us));
  }
}

TEST(Threads, ManyPoolsAtOnce) {
  ThreadPool first(2);
  ThreadPool second(2);
  int a = 0;
  int b = 0;
  for (int i = 0; i < 100; ++i) {
    first.run([&](int thread) {
      if (thread == 1) ++a;
    });
    second.run([&](int thread) {
      if (thread == 1) ++b;
    });
  }
  EXPECT_EQ(a, 100);
  EXPECT_EQ(b, 100);
}

TEST(Threads, ZeroMeansUsableCores) {
  EXPECT_GE(usable_cores(), 1);
  EXPECT_EQ(ThreadPool(0).size(), usable_cores());
}

TEST(Threads, SharesCoverTheWholeOnce) {
  for (std::int64_t count : {0, 1, 7, 64, 1000}) {
    for (int threads : {1, 2, 3, 7, 64}) {
      for (std::int64_t granule : {1, 8, 100}) {
        std::int64_t at = 0;
        for (int t = 0; t < threads; ++t) {
          const Range range = share_of(count, t, threads, granule);
          ASSERT_EQ(range.begin, at);
          ASSERT_LE(range.begin, range.end);
          ASSERT_TRUE(range.end == count || range.end % granule == 0);
          at = range.end;
        }
        ASSERT_EQ(at, count);
      }
    }
  }
}

TEST(Threads, FunctionRefCallsWhatItBorrows) {
  int calls = 0;
  auto counting = [&calls](int value) { return ++calls + value; };
  FunctionRef<int(int)> borrowed = counting;
  EXPECT_EQ(borrowed(1), 2);
  EXPECT_EQ(borrowed(1), 3);
  const auto constant = [](int value) { return value + 10; };
  borrowed = constant;
  EXPECT_EQ(borrowed(1), 11);
}

}  // namespace
}  // namespace hone

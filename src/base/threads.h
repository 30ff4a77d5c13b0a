// The threads that run every model step: one body on all of them, with barriers inside.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "base/function_ref.h"
#include "base/system.h"

namespace hone {

// How long a waiting thread spins before it sleeps. Sleeping costs the next wake-up 5 to 50 us, so
// a spin outlasts the usual imbalance of a step; with more threads than cores it only delays
// whoever has the work, so that pools of that kind sleep at once.
struct SpinTimes {
  std::chrono::nanoseconds barrier{20'000};
  std::chrono::nanoseconds idle{200'000};  // workers, after a run()
};

// One waiter or many wait until a counter that only grows reaches an epoch. The low bit of the word
// says that somebody sleeps, so that a set() without sleepers makes no system call.
class EpochSignal {
 public:
  // Not by several threads at once. Everything written before is seen by whoever waited.
  void set(std::uint32_t epoch) {
    if ((word_.exchange(epoch << 1) & 1u) != 0) word_.notify_all();
  }
  void wait(std::uint32_t epoch, std::chrono::nanoseconds spin);

 private:
  bool reached(std::uint32_t word, std::uint32_t epoch) const {
    return static_cast<std::int32_t>(word - (epoch << 1)) >= 0;  // right across a wrap, too
  }
  std::atomic<std::uint32_t> word_{0};
};

// A dissemination barrier (Hensgen, Finkel, Manber 1988): ceil(log2 n) rounds, in round k thread t
// signals t + 2^k and waits for t - 2^k. For two threads that is one cache line each way.
class Barrier {
 public:
  explicit Barrier(int threads, std::chrono::nanoseconds spin = SpinTimes{}.barrier);
  // Returns when all threads, each with its own index in [0, threads), have arrived. What any of
  // them wrote before is seen by all of them after.
  void arrive_and_wait(int thread);
  int threads() const { return threads_; }

 private:
  struct alignas(64) Cell {  // a line of its own for every writer
    EpochSignal signal;
    std::uint32_t epoch = 0;  // of round 0's cell: the owner's count of barriers passed
  };
  Cell* cells_of(int thread) {
    return cells_.data() + static_cast<std::size_t>(thread) * static_cast<std::size_t>(rounds_);
  }

  int threads_;
  int rounds_;
  std::chrono::nanoseconds spin_;
  std::vector<Cell> cells_;  // (thread, round)
};

// Part `thread` of `threads` nearly equal parts of [0, count), with borders at multiples of
// `granule`. Parts may be empty; together they are the whole.
struct Range {
  std::int64_t begin = 0;
  std::int64_t end = 0;
};
Range share_of(std::int64_t count, int thread, int threads, std::int64_t granule = 1);

class ThreadPool {
 public:
  // threads < 1: as many as there are usable cores. Should the system refuse some, size() is less.
  explicit ThreadPool(int threads, SpinTimes spin = {});
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return size_; }

  // body(0) on the calling thread and body(1) … body(size - 1) on the workers; returns when all
  // have returned. One caller at a time, and not from inside a body. A body does not throw.
  void run(FunctionRef<void(int thread)> body);

  // For use inside a body: all threads, or none, pass it.
  Barrier& barrier() { return *barrier_; }

 private:
  void work(int thread);

  int size_ = 1;
  SpinTimes spin_;
  std::unique_ptr<Barrier> barrier_;
  std::vector<std::thread> workers_;

  // Written by the caller; one line, so that the signal brings the job along.
  struct alignas(64) Job {
    EpochSignal start;
    std::uint32_t epoch = 0;
    FunctionRef<void(int)> body;
    bool stop = false;
  } job_;
  // Written by the workers.
  alignas(64) std::atomic<int> running_{0};
  alignas(64) EpochSignal finished_;
};

}  // namespace hone

// The thread pool and its barrier: spin for a while, then sleep.
// SPDX-License-Identifier: Apache-2.0
#include "base/threads.h"

#include <algorithm>
#include <bit>
#include <memory>
#include <system_error>

namespace hone {
namespace {

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("isb" ::: "memory");  // longer than yield, which is a no-op on most cores
#endif
}

}  // namespace

void EpochSignal::wait(std::uint32_t epoch, std::chrono::nanoseconds spin) {
  if (reached(word_.load(std::memory_order_acquire), epoch)) return;
  if (spin.count() > 0) {
    const auto deadline = std::chrono::steady_clock::now() + spin;
    do {
      for (int i = 0; i < 32; ++i) {  // 32 pauses are about 1.5 us; reading the clock costs 25 ns
        pause();
        if (reached(word_.load(std::memory_order_acquire), epoch)) return;
      }
    } while (std::chrono::steady_clock::now() < deadline);
  }
  std::uint32_t seen = word_.load();
  while (!reached(seen, epoch)) {
    // The bit is set only in a word that has not reached the epoch: the exchange of set() finds it.
    if ((seen & 1u) != 0 || word_.compare_exchange_weak(seen, seen | 1u)) {
      word_.wait(seen | 1u);
      seen = word_.load();
    }
  }
}

Barrier::Barrier(int threads, std::chrono::nanoseconds spin)
    : threads_(std::max(threads, 1)),
      rounds_(static_cast<int>(std::bit_width(static_cast<unsigned>(threads_ - 1)))),
      spin_(spin),
      cells_(static_cast<std::size_t>(threads_) * static_cast<std::size_t>(std::max(rounds_, 1))) {}

void Barrier::arrive_and_wait(int thread) {
  if (threads_ == 1) return;
  Cell* mine = cells_of(thread);
  const std::uint32_t epoch = ++mine->epoch;
  for (int round = 0; round < rounds_; ++round) {
    Cell* partner = cells_of((thread + (1 << round)) % threads_);
    partner[round].signal.set(epoch);
    // A fast partner may already have signalled the next barrier: reached() asks for "at least".
    mine[round].signal.wait(epoch, spin_);
  }
}

Range share_of(std::int64_t count, int thread, int threads, std::int64_t granule) {
  const std::int64_t granules = (count + granule - 1) / granule;
  const std::int64_t each = granules / threads;
  const std::int64_t extra = granules % threads;
  const std::int64_t begin = each * thread + std::min<std::int64_t>(thread, extra);
  const std::int64_t end = begin + each + (thread < extra ? 1 : 0);
  return {std::min(begin * granule, count), std::min(end * granule, count)};
}

ThreadPool::ThreadPool(int threads, SpinTimes spin) : spin_(spin) {
  const int cores = usable_cores();
  const int wanted = threads < 1 ? cores : threads;
  if (wanted > cores) spin_ = {std::chrono::nanoseconds{0}, std::chrono::nanoseconds{0}};
  workers_.reserve(static_cast<std::size_t>(wanted - 1));
  for (; size_ < wanted; ++size_) {
    try {
      workers_.emplace_back(&ThreadPool::work, this, size_);
    } catch (const std::system_error&) {
      break;  // the limit on processes: fewer threads give the same results
    }
  }
  barrier_ = std::make_unique<Barrier>(size_, spin_.barrier);
  running_.store(size_ - 1);
}

ThreadPool::~ThreadPool() {
  job_.stop = true;
  job_.start.set(++job_.epoch);
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::run(FunctionRef<void(int thread)> body) {
  if (size_ == 1) {
    body(0);
    return;
  }
  job_.body = body;
  const std::uint32_t epoch = ++job_.epoch;
  job_.start.set(epoch);
  body(0);
  finished_.wait(epoch, spin_.barrier);
}

void ThreadPool::work(int thread) {
  for (std::uint32_t epoch = 1;; ++epoch) {
    job_.start.wait(epoch, spin_.idle);
    if (job_.stop) return;
    job_.body(thread);
    if (running_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
      running_.store(size_ - 1, std::memory_order_relaxed);  // ordered by set() and the next start
      finished_.set(epoch);
    }
  }
}

}  // namespace hone

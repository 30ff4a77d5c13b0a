// What a barrier and a run() cost. Real time; the argument is the number of threads.
// SPDX-License-Identifier: Apache-2.0
#include <benchmark/benchmark.h>

#include "base/threads.h"

namespace hone {
namespace {

void threads_run(benchmark::State& state) {
  ThreadPool pool(static_cast<int>(state.range(0)));
  for (auto _ : state) pool.run([](int) {});
}
BENCHMARK(threads_run)->Arg(1)->Arg(2)->Arg(0)->UseRealTime();

void threads_barrier(benchmark::State& state) {
  ThreadPool pool(static_cast<int>(state.range(0)));
  constexpr int kBarriers = 10'000;
  for (auto _ : state) {
    pool.run([&pool](int thread) {
      for (int i = 0; i < kBarriers; ++i) pool.barrier().arrive_and_wait(thread);
    });
  }
  state.SetItemsProcessed(state.iterations() * kBarriers);
  state.counters["ns_per_barrier"] =
      benchmark::Counter(1e-9 * kBarriers * static_cast<double>(state.iterations()),
                         benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}
BENCHMARK(threads_barrier)->Arg(2)->Arg(0)->UseRealTime();

// Wake-up of workers that have fallen asleep.
void threads_run_after_sleep(benchmark::State& state) {
  ThreadPool pool(2, SpinTimes{std::chrono::nanoseconds{0}, std::chrono::nanoseconds{0}});
  for (auto _ : state) pool.run([](int) {});
}
BENCHMARK(threads_run_after_sleep)->UseRealTime();

}  // namespace
}  // namespace hone

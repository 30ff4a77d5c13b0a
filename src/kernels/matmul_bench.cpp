// Matrix multiplication's speed: share of the int8 peak (many tokens), GB/s of weights (few).
// SPDX-License-Identifier: Apache-2.0
#include <benchmark/benchmark.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "base/random.h"
#include "kernels/matmul.h"
#include "kernels/registry.h"

namespace hone::kernels {
namespace {

using Clock = std::chrono::steady_clock;

// One matrix of random codes, with its activations; as many copies of it as make `footprint` bytes,
// so that a decode step finds its weights in memory and not in a cache.
struct Fixture {
  Fixture(DType dtype, std::int64_t rows, std::int64_t columns, int tokens, std::size_t footprint) {
    layout = *packed_layout(dtype, rows, columns);
    const auto bytes = static_cast<std::size_t>(layout.total_bytes);
    copies = std::max<std::size_t>(1, footprint / bytes);
    storage.resize(bytes * copies + 64);
    const auto address = reinterpret_cast<std::uintptr_t>(storage.data());
    start = (64 - address % 64) % 64;
    Random random(1);
    std::vector<std::byte> source(static_cast<std::size_t>(dtype_bytes(dtype, rows * columns)));
    for (std::byte& byte : source) byte = static_cast<std::byte>(random.next_u32() & 0x3b);
    pack_panels(layout, source, 0, layout.panels(), std::span(storage).subspan(start, bytes));
    for (std::size_t i = 1; i < copies; ++i) {
      std::copy_n(storage.begin() + static_cast<std::ptrdiff_t>(start), bytes,
                  storage.begin() + static_cast<std::ptrdiff_t>(start + i * bytes));
    }
    const auto count = static_cast<std::size_t>(tokens * columns);
    for (std::size_t i = 0; i < count; ++i) {
      codes.push_back(static_cast<std::int8_t>(static_cast<int>(random.below(255)) - 127));
      values.push_back(random.normal());
    }
    scales.assign(count / 32, 0.01F);
    sums.assign(count / 32, 0.25F);
    out.resize(static_cast<std::size_t>(tokens * rows));
  }

  MatmulTask task(int tokens, std::size_t copy, int thread, int threads) {
    MatmulTask task;
    const auto bytes = static_cast<std::size_t>(layout.total_bytes);
    task.layout = layout;
    task.weights = std::span(storage).subspan(start + copy * bytes, bytes);
    const std::int64_t pairs = (layout.panels() + 1) / 2;
    task.first_panel = 2 * (pairs * thread / threads);
    task.panel_count =
        std::min(layout.panels(), 2 * (pairs * (thread + 1) / threads)) - task.first_panel;
    task.tokens = tokens;
    task.int8 = {codes.data(), scales.data(), sums.data()};
    task.floats = {values.data(), static_cast<std::size_t>(layout.columns)};
    task.out = out.data();
    task.out_stride = static_cast<std::size_t>(layout.rows);
    return task;
  }

  PackedLayout layout;
  std::size_t copies = 1;
  std::size_t start = 0;
  std::vector<std::byte> storage;
  std::vector<std::int8_t> codes;
  std::vector<float> values, scales, sums, out;
};

// Seconds of body(thread) on all threads at once: the fastest of many, since the machine has other
// work. Threads start together at a flag that they watch.
template <typename Body>
double fastest(int threads, double budget, Body body) {
  std::atomic<int> round{0};
  std::atomic<int> done{0};
  std::atomic<bool> stop{false};
  std::vector<std::thread> workers;
  for (int thread = 1; thread < threads; ++thread) {
    workers.emplace_back([&, thread] {
      for (int seen = 0;; ++seen) {
        while (round.load() == seen) {
          if (stop.load()) return;
          std::this_thread::yield();  // or it may starve the other on one core
        }
        body(thread);
        ++done;
      }
    });
  }
  const auto since = [](Clock::time_point begin) {
    return std::chrono::duration<double>(Clock::now() - begin).count();
  };
  const auto begin = Clock::now();
  double best = 1e9;
  for (int i = 0; i < 3 || since(begin) < budget; ++i) {
    done = 0;
    const auto from = Clock::now();
    ++round;
    body(0);
    while (done.load() < threads - 1) std::this_thread::yield();
    best = std::min(best, since(from));
  }
  stop = true;
  for (std::thread& worker : workers) worker.join();
  return best;
}

struct Limits {
  double operations = 0.0;  // a second, int8
  double bytes = 0.0;       // a second, read from memory
};

Limits measure_limits(const KernelTable& table, int threads) {
  constexpr std::size_t kBytes = std::size_t{256} << 20;
  const std::vector<std::byte> memory(kBytes, std::byte{1});
  const std::size_t part = kBytes / static_cast<std::size_t>(threads);
  std::atomic<std::uint64_t> operations{0};
  std::atomic<std::uint64_t> words{0};
  Limits limits;
  const double seconds = fastest(threads, 0.3, [&](int) {
    const PeakRun run = table.peak_int8(5000);
    operations = run.operations;
    words += static_cast<std::uint64_t>(run.checksum);
  });
  limits.operations = static_cast<double>(operations.load()) * threads / seconds;
  limits.bytes = static_cast<double>(kBytes) / fastest(threads, 0.3, [&](int thread) {
                   const auto at = part * static_cast<std::size_t>(thread);
                   words += table.read_bandwidth(std::span(memory).subspan(at, part));
                 });
  benchmark::DoNotOptimize(words.load());
  return limits;
}

void run(benchmark::State& state, const KernelTable& table, DType dtype, std::int64_t rows,
         std::int64_t columns, int tokens, int threads, bool int8) {
  constexpr std::size_t kFootprint = std::size_t{192} << 20;  // decode alone
  Fixture fixture(dtype, rows, columns, tokens, tokens <= 8 ? kFootprint : 0);
  const Limits limits = measure_limits(table, threads);
  const auto kernel = int8 ? table.int8_matmul : table.f32_matmul;
  // A sweep over all copies is a single timing: memory is what it measures.
  const double seconds = fastest(threads, 0.3,
                                 [&](int thread) {
                                   for (std::size_t copy = 0; copy < fixture.copies; ++copy) {
                                     const MatmulTask task =
                                         fixture.task(tokens, copy, thread, threads);
                                     if (task.panel_count > 0) kernel(task);
                                   }
                                 }) /
                         static_cast<double>(fixture.copies);
  for (auto _ : state) state.SetIterationTime(seconds);
  const double operations = 2.0 * static_cast<double>(rows * columns) * tokens / seconds;
  const double bytes = static_cast<double>(fixture.layout.total_bytes) / seconds;
  state.counters["GOPS"] = operations / 1e9;
  state.counters["of_peak"] = operations / limits.operations;
  state.counters["GB/s"] = bytes / 1e9;
  state.counters["of_read"] = bytes / limits.bytes;
}

void add(const KernelTable& table, DType dtype, std::int64_t rows, std::int64_t columns, int tokens,
         int threads, bool int8) {
  const std::string name = std::string("matmul_") + (int8 ? "int8/" : "f32/") + table.isa + '/' +
                           std::string(dtype_name(dtype)) + '/' + std::to_string(rows) + 'x' +
                           std::to_string(columns) + "/N:" + std::to_string(tokens) +
                           "/threads:" + std::to_string(threads);
  benchmark::RegisterBenchmark(name.c_str(),
                               [=, &table](benchmark::State& state) {
                                 run(state, table, dtype, rows, columns, tokens, threads, int8);
                               })
      ->UseManualTime()
      ->Iterations(1);
}

const bool kRegistered = [] {
  struct Shape {
    std::int64_t rows, columns;
  };
  // SmolLM2-135M: attention, gate and up, down; Gemma-3-270m: gate and up, down.
  constexpr Shape kShapes[] = {{576, 576}, {1536, 576}, {576, 1536}, {2048, 640}, {640, 2048}};
  for (const KernelTable* table : available_kernels()) {
    if (table == available_kernels().front() && available_kernels().size() > 1) continue;
    for (const int threads : {1, 2}) {
      for (const int tokens : {1, 2, 4, 8, 16, 64, 256}) {
        for (const DType dtype : {DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ8_0,
                                  DType::kQ4_K, DType::kQ6_K, DType::kIQ4_NL}) {
          for (const Shape shape : kShapes) {
            if (shape.columns % dtype_info(dtype).block != 0) continue;
            add(*table, dtype, shape.rows, shape.columns, tokens, threads, true);
          }
        }
        for (const DType dtype : {DType::kF32, DType::kBF16, DType::kQ4_1}) {
          add(*table, dtype, 1536, 576, tokens, threads, false);
        }
      }
    }
  }
  return true;
}();

}  // namespace
}  // namespace hone::kernels

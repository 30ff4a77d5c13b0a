// Attention's speed: as a share of the FMA peak, and for decode of the bandwidth of reading.
// SPDX-License-Identifier: Apache-2.0
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <string>
#include <vector>

#include "base/random.h"
#include "kernels/attention.h"
#include "kernels/registry.h"

namespace hone::kernels {
namespace {

struct Model {
  const char* name;
  int kv_heads;
  int group;
  int head_size;
};

constexpr Model kModels[] = {{"smollm2", 3, 3, 64}, {"gemma3", 1, 4, 256}};
constexpr const char* kKinds[] = {"f16", "i8", "f32"};

struct Fixture {
  Fixture(const KernelTable& table_to_run, const Model& model, CacheKind kind, int positions,
          int tokens)
      : table(table_to_run) {
    const CacheLayout layout = {kind, model.kv_heads, model.head_size};
    const std::size_t row = static_cast<std::size_t>(model.kv_heads * model.head_size);
    const int count = (positions + kPageTokens - 1) / kPageTokens;
    const std::size_t page = layout.page_bytes_key();
    // Room to start at a cache line.
    keys.resize(static_cast<std::size_t>(count) * page + 64);
    values.resize(keys.size());
    Random random(1);
    std::vector<float> key(row);
    std::vector<float> value(row);
    task.key_pool = aligned(keys);
    task.value_pool = aligned(values);
    const auto writable = [&](std::vector<std::byte>& pool, std::span<const std::byte> start,
                              std::size_t at) {
      const std::size_t skip = static_cast<std::size_t>(start.data() - pool.data());
      return std::span(pool).subspan(skip + at * page, page);
    };
    // Pages in an order that no prefetcher guesses: 7919 is a prime beyond all counts here.
    for (int i = 0; i < count; ++i) pages.push_back(static_cast<int>(7919L * i % count));
    for (int p = 0; p < positions; ++p) {
      for (float& x : key) x = random.uniform() - 0.5F;
      for (float& x : value) x = random.uniform() - 0.5F;
      const auto at = static_cast<std::size_t>(pages[static_cast<std::size_t>(p / kPageTokens)]);
      table.paged_store(layout, writable(keys, task.key_pool, at),
                        writable(values, task.value_pool, at), p % kPageTokens, key, value);
    }
    task.layout = layout;
    task.pages = pages;
    task.query_heads = task.last_head = model.kv_heads * model.group;
    task.tokens = tokens;
    task.first_position = positions - tokens;
    task.query_stride = task.out_stride = row * static_cast<std::size_t>(model.group);
    queries.resize(task.query_stride * static_cast<std::size_t>(tokens));
    for (float& x : queries) x = random.uniform() - 0.5F;
    out.resize(queries.size());
    task.queries = queries.data();
    task.out = out.data();
    task.scale = 0.125F;
    scratch.resize(attention_scratch_bytes(layout));
    task.scratch = scratch;
  }

  static std::span<const std::byte> aligned(const std::vector<std::byte>& bytes) {
    const std::size_t over = reinterpret_cast<std::uintptr_t>(bytes.data()) % 64;
    return std::span<const std::byte>(bytes).subspan((64 - over) % 64);
  }

  void run() const { table.paged_attention(task); }

  double cache_bytes() const {
    return 2.0 * static_cast<double>(pages.size() * task.layout.page_bytes_key());
  }

  // Multiply and add counted as 2, over the pairs that causality lets through.
  double flops() const {
    double pairs = 0;
    for (int t = 0; t < task.tokens; ++t) pairs += task.first_position + t + 1;
    return 4.0 * pairs * task.query_heads * task.layout.head_size;
  }

  const KernelTable& table;
  std::vector<std::byte> keys;
  std::vector<std::byte> values;
  std::vector<std::int32_t> pages;
  std::vector<float> queries;
  std::vector<float> out;
  std::vector<std::byte> scratch;
  AttentionTask task;
};

// Seconds of the fastest of the calls so far: the mean suffers from whatever else runs.
class Fastest {
 public:
  template <class Call>
  void time(const Call& call) {
    const auto start = std::chrono::steady_clock::now();
    call();
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    seconds_ = std::min(seconds_, elapsed.count());
  }
  double rate(double work) const { return work / seconds_; }

 private:
  double seconds_ = std::numeric_limits<double>::infinity();
};

// Both figures of the limits are measured right behind the runs that they are compared with.
void report(benchmark::State& state, const Fixture& fixture, const Fastest& fastest) {
  double checksum = 0.0;
  double operations = 0.0;
  std::uint64_t words = 0;
  Fastest peak;
  Fastest read;
  for (int i = 0; i < 50; ++i) {
    peak.time([&] {
      const PeakRun run = fixture.table.peak_f32(2000);
      operations = static_cast<double>(run.operations);
      checksum += run.checksum;
    });
    read.time([&] { words += fixture.table.read_bandwidth(fixture.keys); });
  }
  benchmark::DoNotOptimize(checksum);
  benchmark::DoNotOptimize(words);
  const auto average = benchmark::Counter::kAvgThreads;
  const auto put = [&](const char* name, double value) {
    state.counters[name] = benchmark::Counter(value, average);
  };
  put("GFLOPS", fastest.rate(fixture.flops()) * 1e-9);
  put("of_peak", fastest.rate(fixture.flops()) / peak.rate(operations));
  put("best_us", 1e6 / fastest.rate(1.0));
  if (fixture.task.tokens == 1) {
    const double bytes = fixture.cache_bytes();
    put("GB/s", fastest.rate(bytes) * 1e-9);
    put("of_read", fastest.rate(bytes) / read.rate(static_cast<double>(fixture.keys.size())));
  }
}

// `tokens` of them queried, at the end of `positions`.
void attend(benchmark::State& state, const KernelTable* table, Model model, CacheKind kind,
            int positions, int tokens) {
  Fixture fixture(*table, model, kind, positions, tokens);
  Fastest fastest;
  for (auto _ : state) fastest.time([&] { fixture.run(); });
  report(state, fixture, fastest);
}

void store(benchmark::State& state, const KernelTable* table, Model model, CacheKind kind) {
  const CacheLayout layout = {kind, model.kv_heads, model.head_size};
  std::vector<std::byte> keys(layout.page_bytes_key());
  std::vector<std::byte> values(layout.page_bytes_value());
  const std::vector<float> row(static_cast<std::size_t>(model.kv_heads * model.head_size), 0.5F);
  int token = 0;
  for (auto _ : state) {
    table->paged_store(layout, keys, values, token, row, row);
    token = (token + 1) % kPageTokens;
  }
}

const bool kRegistered = [] {
  for (const KernelTable* table : available_kernels()) {
    const std::string isa = table->isa;
    for (const Model& model : kModels) {
      for (int k = 0; k < 3; ++k) {
        const auto kind = static_cast<CacheKind>(k);
        const std::string tail = std::string("/") + model.name + "/" + kKinds[k] + "/" + isa;
        if (k == 2 && table != available_kernels().back()) continue;
        // With two threads each has a sequence of its own: what cores share slows them.
        for (const int threads : {1, 2}) {
          if (threads == 2 && (k != 0 || table != available_kernels().back())) continue;
          for (const int tokens : {256, 1024}) {
            benchmark::RegisterBenchmark(
                ("attention/prefill" + std::to_string(tokens) + tail).c_str(), attend, table, model,
                kind, tokens, tokens)
                ->Unit(benchmark::kMicrosecond)
                ->Threads(threads);
          }
          for (const int positions : {128, 1024, 8192}) {
            benchmark::RegisterBenchmark(
                ("attention/decode" + std::to_string(positions) + tail).c_str(), attend, table,
                model, kind, positions, 1)
                ->Unit(benchmark::kMicrosecond)
                ->Threads(threads);
          }
        }
        benchmark::RegisterBenchmark(("attention/store" + tail).c_str(), store, table, model, kind);
      }
    }
  }
  return true;
}();

}  // namespace
}  // namespace hone::kernels

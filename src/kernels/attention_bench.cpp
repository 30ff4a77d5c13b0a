// Attention's speed: prefill against the FMA peak measured beside it, decode in bytes of cache
// read. SPDX-License-Identifier: Apache-2.0
#include <benchmark/benchmark.h>
#include <immintrin.h>

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
    scratch[0].resize(attention_scratch_bytes(layout));
    scratch[1] = scratch[0];
  }

  static std::span<const std::byte> aligned(const std::vector<std::byte>& bytes) {
    const std::size_t over = reinterpret_cast<std::uintptr_t>(bytes.data()) % 64;
    return std::span<const std::byte>(bytes).subspan((64 - over) % 64);
  }

  void run(int first_head, int last_head, std::size_t thread) {
    AttentionTask part = task;
    part.first_head = first_head;
    part.last_head = last_head;
    part.scratch = scratch[thread];
    table.paged_attention(part);
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
  std::vector<std::byte> scratch[2];
  AttentionTask task;
};

// What the other figures are shares of: 12 independent chains of FMAs in registers.
#define HONE_PEAK(name, features, vector, set, fma, lanes)                                        \
  __attribute__((target(features))) void name(benchmark::State& state) {                          \
    vector sum[12];                                                                               \
    for (auto& s : sum) s = set(1.0F);                                                            \
    const vector factor = set(0.999F);                                                            \
    for (auto _ : state) {                                                                        \
      for (int i = 0; i < 1000; ++i) {                                                            \
        for (auto& s : sum) {                                                                     \
          s = fma(s, factor, factor);                                                             \
          asm volatile("" : "+v"(s));                                                             \
        }                                                                                         \
      }                                                                                           \
    }                                                                                             \
    state.counters["GFLOPS"] =                                                                    \
        benchmark::Counter(12 * 2 * lanes * 1e-6, benchmark::Counter::kIsIterationInvariantRate); \
  }
HONE_PEAK(peak_avx512, "avx512f", __m512, _mm512_set1_ps, _mm512_fmadd_ps, 16)
HONE_PEAK(peak_avx2, "avx2,fma", __m256, _mm256_set1_ps, _mm256_fmadd_ps, 8)
#undef HONE_PEAK

void prefill(benchmark::State& state, const KernelTable* table, Model model, CacheKind kind,
             int tokens) {
  Fixture fixture(*table, model, kind, tokens, tokens);
  for (auto _ : state) fixture.run(0, fixture.task.query_heads, 0);
  state.counters["GFLOPS"] =
      benchmark::Counter(fixture.flops() * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
}

void decode(benchmark::State& state, const KernelTable* table, Model model, CacheKind kind,
            int positions) {
  Fixture fixture(*table, model, kind, positions, 1);
  for (auto _ : state) fixture.run(0, fixture.task.query_heads, 0);
  const double bytes =
      2.0 * positions / kPageTokens * static_cast<double>(fixture.task.layout.page_bytes_key());
  state.counters["GB/s"] =
      benchmark::Counter(bytes * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
  state.counters["GFLOPS"] =
      benchmark::Counter(fixture.flops() * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
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
    if (isa == "avx512") benchmark::RegisterBenchmark("attention/peak/avx512", peak_avx512);
    if (isa == "avx2") benchmark::RegisterBenchmark("attention/peak/avx2", peak_avx2);
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
                ("attention/prefill" + std::to_string(tokens) + tail).c_str(), prefill, table,
                model, kind, tokens)
                ->Unit(benchmark::kMicrosecond)
                ->Threads(threads);
          }
          for (const int positions : {128, 1024, 8192}) {
            benchmark::RegisterBenchmark(
                ("attention/decode" + std::to_string(positions) + tail).c_str(), decode, table,
                model, kind, positions)
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

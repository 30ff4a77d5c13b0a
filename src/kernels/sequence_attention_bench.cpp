// Speed of attention among a batch's own tokens, both directions, as a share of the FMA peak.
// SPDX-License-Identifier: Apache-2.0
#include "kernels/sequence_attention.h"

#include <benchmark/benchmark.h>

#include <time.h>

#include <algorithm>
#include <string>
#include <vector>

#include "base/random.h"
#include "kernels/registry.h"

namespace hone::kernels {
namespace {

struct Model {
  const char* name;
  int heads, kv_heads, head_size;
};

constexpr Model kModels[] = {
    {"smollm2", 9, 3, 64}, {"gemma3", 4, 1, 256}, {"qwen3", 16, 8, 128}, {"odd", 4, 2, 72}};

// `sequences` of `tokens` each, one behind the other.
struct Fixture {
  Fixture(const KernelTable& table_to_run, const Model& model, int count, int tokens)
      : table(table_to_run), sequences(count) {
    shape = {tokens, model.heads, model.kv_heads, model.head_size, 0.125F, 0, 0.0F};
    Random random(1);
    const auto fill = [&](std::vector<float>& rows, std::size_t width) {
      rows.resize(static_cast<std::size_t>(count * tokens) * width);
      for (float& x : rows) x = random.uniform() - 0.5F;
    };
    for (auto* rows : {&queries, &out, &d_out, &d_queries}) fill(*rows, shape.query_stride());
    for (auto* rows : {&keys, &values, &d_keys, &d_values}) fill(*rows, shape.key_stride());
    fill(log_sum, static_cast<std::size_t>(model.heads));
    scratch.resize(sequence_attention_scratch_bytes(model.head_size));
  }

  void forward() {
    for (int s = 0; s < sequences; ++s) {
      const auto row = static_cast<std::size_t>(s * shape.tokens);
      SequenceAttentionTask task;
      task.shape = shape;
      task.queries = queries.data() + row * shape.query_stride();
      task.keys = keys.data() + row * shape.key_stride();
      task.values = values.data() + row * shape.key_stride();
      task.out = out.data() + row * shape.query_stride();
      task.log_sum = log_sum.data() + row * static_cast<std::size_t>(shape.heads);
      task.last_query = shape.tokens;
      task.scratch = scratch;
      for (task.head = 0; task.head < shape.heads; ++task.head) table.sequence_attention(task);
    }
  }

  void backward() {
    const int group = shape.heads / shape.kv_heads;
    for (int s = 0; s < sequences; ++s) {
      const auto row = static_cast<std::size_t>(s * shape.tokens);
      SequenceGradientTask task;
      task.shape = shape;
      task.queries = queries.data() + row * shape.query_stride();
      task.keys = keys.data() + row * shape.key_stride();
      task.values = values.data() + row * shape.key_stride();
      task.out = out.data() + row * shape.query_stride();
      task.log_sum = log_sum.data() + row * static_cast<std::size_t>(shape.heads);
      task.d_out = d_out.data() + row * shape.query_stride();
      task.d_queries = d_queries.data() + row * shape.query_stride();
      task.d_keys = d_keys.data() + row * shape.key_stride();
      task.d_values = d_values.data() + row * shape.key_stride();
      task.last_query = task.last_key = shape.tokens;
      task.scratch = scratch;
      for (int head = 0; head < shape.heads; head += group) {
        task.first_head = head;
        task.last_head = head + group;
        table.sequence_attention_gradient(task);
      }
    }
  }

  // Multiply and add counted as 2, over the pairs that causality lets through.
  double flops(int products) const {
    const double pairs = 0.5 * shape.tokens * (shape.tokens + 1.0);
    return 2.0 * products * sequences * pairs * shape.heads * shape.head_size;
  }

  const KernelTable& table;
  int sequences;
  SequenceShape shape;
  std::vector<float> queries, keys, values, out, log_sum, d_out, d_queries, d_keys, d_values;
  std::vector<std::byte> scratch;
};

// Processor seconds of a call: what others run beside it does not count, as far as it takes turns.
template <class Call>
double seconds_of(const Call& call) {
  const auto now = [] {
    timespec time{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
  };
  const double before = now();
  call();
  return now() - before;
}

// The peak is measured behind every run, for about as long, so that both see the same machine; the
// share is that of the fastest of each: whatever else runs only slows.
void run(benchmark::State& state, const KernelTable* table, Model model, int sequences, int tokens,
         bool backward) {
  Fixture fixture(*table, model, sequences, tokens);
  fixture.forward();
  const double flops = fixture.flops(backward ? 5 : 2);
  const auto iterations =
      static_cast<std::uint64_t>(flops / static_cast<double>(table->peak_f32(1).operations));
  double rate = 0.0;
  double peak = 0.0;
  double checksum = 0.0;
  for (auto _ : state) {
    const double seconds = seconds_of([&] { backward ? fixture.backward() : fixture.forward(); });
    rate = std::max(rate, flops / seconds);
    state.PauseTiming();
    PeakRun limit;
    const double best = seconds_of([&] { limit = table->peak_f32(iterations); });
    peak = std::max(peak, static_cast<double>(limit.operations) / best);
    checksum += limit.checksum;
    state.ResumeTiming();
  }
  benchmark::DoNotOptimize(checksum);
  state.counters["GFLOPS"] = rate * 1e-9;
  state.counters["of_peak"] = rate / peak;
}

const bool kRegistered = [] {
  for (const KernelTable* table : available_kernels()) {
    for (const Model& model : kModels) {
      for (const bool backward : {false, true}) {
        for (const auto& [sequences, tokens] : {std::pair{4, 256}, {1, 1024}}) {
          const std::string name = std::string("sequence_attention/") +
                                   (backward ? "backward/" : "forward/") + model.name + "/" +
                                   std::to_string(sequences) + "x" + std::to_string(tokens) + "/" +
                                   table->isa;
          benchmark::RegisterBenchmark(name.c_str(), run, table, model, sequences, tokens, backward)
              ->Unit(benchmark::kMicrosecond);
        }
      }
    }
  }
  return true;
}();

}  // namespace
}  // namespace hone::kernels

// Forms of softmax and log-sum-exp side by side, in nanoseconds an element, with the bound that the
// machine's bandwidth sets in the same run.
// SPDX-License-Identifier: Apache-2.0
//
// hone_kernels_bench --benchmark_filter=Softmax --benchmark_counters_tabular=true
//
// Protocol: inputs uniform in +-1000; the input is read once before each measurement; results go to
// buffers in turn that make 256 MiB together (`rotated`: the output is never in a cache), or to one
// buffer again and again (`reused`: it is, if it fits, as in a running model); the forms take turns
// in every round, so that a slow moment of the machine hits all; medians over the rounds of the
// thread's own time. `bound` of softmax is reading the row once and scaling it once into the same
// buffers (what two passes must move at least), of log-sum-exp reading it once.
#include <benchmark/benchmark.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernels/cache_size.h"
#include "kernels/registry.h"

namespace hone::kernels {
namespace {

struct Free {
  void operator()(float* memory) const { std::free(memory); }
};

// Floats on huge pages where the system grants them, so that page walks are not what is measured.
std::unique_ptr<float[], Free> huge_floats(std::size_t count) {
  constexpr std::size_t kHugePage = std::size_t{1} << 21;
  const std::size_t bytes = (count * sizeof(float) + kHugePage - 1) / kHugePage * kHugePage;
  auto* memory = static_cast<float*>(std::aligned_alloc(kHugePage, bytes));
  if (memory == nullptr) return nullptr;
  madvise(memory, bytes, MADV_HUGEPAGE);
  std::fill_n(memory, count, 0.0f);
  return std::unique_ptr<float[], Free>(memory);
}

std::unique_ptr<float[], Free> random_logits(std::size_t count) {
  auto logits = huge_floats(count);
  if (!logits) return nullptr;
  std::mt19937 engine(1);
  std::uniform_real_distribution<float> uniform(-1000.0f, 1000.0f);
  for (std::size_t i = 0; i < count; ++i) logits[i] = uniform(engine);
  return logits;
}

struct Contender {
  std::string name;
  std::function<void(std::span<const float>, std::span<float>)> run;
  std::vector<double> nanoseconds;  // an element, one entry a round
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// The time this thread ran, without the time that others had the processor.
double thread_nanoseconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e9 + static_cast<double>(now.tv_nsec);
}

// Every contender once a round, over as many rows as make a measurable time.
void run_rounds(std::size_t size, bool reuse, std::vector<Contender>& contenders,
                benchmark::State& state) {
  const std::size_t rotated = std::max(size, (std::size_t{256} << 20) / sizeof(float));
  const std::size_t pool = reuse ? size : rotated;
  auto input = random_logits(size);
  auto output = huge_floats(pool);
  if (!input || !output) {
    state.SkipWithError("not enough memory");
    return;
  }
  const std::span<const float> x(input.get(), size);
  const std::size_t rows = std::max<std::size_t>(1, (std::size_t{1} << 20) / size);
  const std::size_t rounds = size >= (std::size_t{1} << 26)   ? 3
                             : size >= (std::size_t{1} << 22) ? 9
                                                              : 31;
  std::size_t at = 0;
  for (auto _ : state) {
    for (std::size_t round = 0; round < rounds; ++round) {
      for (Contender& contender : contenders) {
        benchmark::DoNotOptimize(kernels().read_bandwidth(std::as_bytes(x)));
        const double begin = thread_nanoseconds();
        for (std::size_t row = 0; row < rows; ++row) {
          if (at + size > pool) at = 0;
          contender.run(x, std::span<float>(output.get() + at, size));
          at += size;
        }
        contender.nanoseconds.push_back((thread_nanoseconds() - begin) /
                                        static_cast<double>(rows * size));
      }
    }
  }
  for (const Contender& contender : contenders) {
    state.counters[contender.name] = median(contender.nanoseconds);
  }
}

void softmax_forms(benchmark::State& state, const KernelTable* table, std::size_t size,
                   bool reuse) {
  const std::size_t cache = private_cache_bytes();
  std::vector<Contender> forms;
  const auto add = [&forms](const char* name, auto run) { forms.push_back({name, run, {}}); };
  for (const bool stream : {false, true}) {
    const auto named = [stream](std::string name) { return name + (stream ? "_nt" : ""); };
    add(named("two_pass").c_str(),
        [=](auto x, auto out) { table->softmax_two_pass(x, out, stream); });
    add(named("reload").c_str(),
        [=](auto x, auto out) { table->softmax_three_pass_reload(x, out, stream); });
    add(named("recompute").c_str(),
        [=](auto x, auto out) { table->softmax_three_pass_recompute(x, out, stream); });
  }
  add("chosen", [=](auto x, auto out) { table->softmax(x, out, cache); });
  add("bound", [=](auto x, auto out) {
    benchmark::DoNotOptimize(table->read_bandwidth(std::as_bytes(x)));
    table->scale(x, 0.5f, out);
  });
  run_rounds(size, reuse, forms, state);
}

void log_sum_exp_forms(benchmark::State& state, const KernelTable* table, std::size_t size) {
  std::vector<Contender> forms;
  forms.push_back({"one_pass",
                   [=](auto x, auto) { benchmark::DoNotOptimize(table->log_sum_exp_one_pass(x)); },
                   {}});
  forms.push_back({"two_read",
                   [=](auto x, auto) { benchmark::DoNotOptimize(table->log_sum_exp_two_read(x)); },
                   {}});
  forms.push_back(
      {"bound",
       [=](auto x, auto) { benchmark::DoNotOptimize(table->read_bandwidth(std::as_bytes(x))); },
       {}});
  run_rounds(size, true, forms, state);
}

constexpr std::size_t kSizes[] = {2048,    8192,     49152,    262144,   1048576,
                                  4194304, 16777216, 67108864, 268435456};

const bool kRegistered = [] {
  for (const KernelTable* table : available_kernels()) {
    if (std::string(table->isa) == "scalar") continue;
    for (const std::size_t size : kSizes) {
      const std::string suffix = std::string("/") + table->isa + "/" + std::to_string(size);
      for (const bool reuse : {false, true}) {
        const std::string name = "Softmax" + suffix + (reuse ? "/reused" : "/rotated");
        benchmark::RegisterBenchmark(name.c_str(), softmax_forms, table, size, reuse)
            ->Iterations(1)
            ->Unit(benchmark::kMillisecond);
      }
      benchmark::RegisterBenchmark(("LogSumExp" + suffix).c_str(), log_sum_exp_forms, table, size)
          ->Iterations(1)
          ->Unit(benchmark::kMillisecond);
    }
  }
  return true;
}();

}  // namespace
}  // namespace hone::kernels

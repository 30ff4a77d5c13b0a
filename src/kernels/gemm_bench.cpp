// Dense products' speed: GFLOPS and the share of the f32 peak that the same run measures.
// SPDX-License-Identifier: Apache-2.0
#include <benchmark/benchmark.h>
#include <sys/mman.h>

#include <algorithm>
#include <ctime>
#include <memory>
#include <new>
#include <span>
#include <string>
#include <vector>

#include "base/random.h"
#include "base/threads.h"
#include "kernels/gemm.h"
#include "kernels/registry.h"
#include "quant/codec.h"

namespace hone::kernels {
namespace {

// Processor time of the calling thread: other programs on the machine do not count, as long as they
// leave the caches alone.
double thread_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// Seconds of the slowest thread, in the fastest of many runs: the machine has other work. The
// budget is processor time, too.
template <typename Body>
double fastest(ThreadPool& pool, double budget, Body body) {
  std::vector<double> seconds(static_cast<std::size_t>(pool.size()));
  double spent = 0;
  double best = 1e9;
  for (int i = 0; i < 4 || spent < budget; ++i) {
    pool.run([&](int thread) {
      const double from = thread_seconds();
      body(thread);
      seconds[static_cast<std::size_t>(thread)] = thread_seconds() - from;
    });
    const double slowest = *std::ranges::max_element(seconds);
    best = std::min(best, slowest);
    spent += slowest;
  }
  return best;
}

// Operations a second: of bf16 where it is asked for and the CPU has it, else of f32.
double peak_operations(const KernelTable& table, ThreadPool& pool, bool bf16) {
  constexpr std::uint64_t kIterations = 20000;
  const auto peak = bf16 && table.peak_bf16(1).operations > 0 ? table.peak_bf16 : table.peak_f32;
  const auto operations = static_cast<double>(peak(1).operations * kIterations);
  const double seconds =
      fastest(pool, 0.2, [&](int) { benchmark::DoNotOptimize(peak(kIterations).checksum); });
  return operations * pool.size() / seconds;
}

// Numbers in huge pages, as programs have them (runtime/execute.h).
struct Numbers {
  static constexpr auto kPage = static_cast<std::align_val_t>(2 << 20);
  struct Free {
    void operator()(float* memory) const { ::operator delete(memory, kPage); }
  };
  explicit Numbers(std::int64_t count) {
    const auto size = static_cast<std::size_t>(count);
    data.reset(static_cast<float*>(::operator new(size * sizeof(float), kPage)));
    ::madvise(data.get(), size * sizeof(float), MADV_HUGEPAGE);
    Random random(1);
    for (std::size_t i = 0; i < size; ++i) data.get()[i] = random.normal();
  }
  std::unique_ptr<float, Free> data;
};

struct Case {
  const char* name;
  std::int64_t rows, depth, columns;
  DType dtype;
  bool packed, a_transposed, b_transposed;
  bool bf16 = false;
};

void run(benchmark::State& state, const KernelTable& table, const Case& what, int threads) {
  const std::int64_t b_rows = what.b_transposed ? what.columns : what.depth;
  const std::int64_t b_columns = what.b_transposed ? what.depth : what.columns;
  const Numbers a(what.rows * what.depth);
  const Numbers numbers(b_rows * b_columns);
  const std::span<const float> weights(numbers.data.get(),
                                       static_cast<std::size_t>(b_rows * b_columns));
  std::vector<std::byte> bytes;
  if (what.packed) {
    bytes = *quant::quantize(what.dtype, weights);
    const PackedLayout layout = *packed_layout(what.dtype, b_rows, b_columns);
    std::vector<std::byte> panels(static_cast<std::size_t>(layout.total_bytes));
    pack_panels(layout, bytes, 0, layout.panels(), panels);
    bytes = std::move(panels);
  }
  const Numbers c(what.rows * what.columns);
  ThreadPool pool(threads);
  struct alignas(64) Scratch {
    std::byte bytes[kGemmScratchBytes];
  };
  const auto scratch = std::make_unique<Scratch[]>(static_cast<std::size_t>(threads));
  const double peak = peak_operations(table, pool, what.bf16);
  const double seconds = fastest(pool, 0.5, [&](int thread) {
    GemmTask task;
    task.rows = what.rows;
    task.columns = what.columns;
    task.depth = what.depth;
    task.a = a.data.get();
    task.a_stride = static_cast<std::size_t>(what.a_transposed ? what.rows : what.depth);
    task.a_transposed = what.a_transposed;
    task.b = {what.dtype, b_rows, b_columns, what.packed,
              what.packed ? std::span<const std::byte>(bytes) : std::as_bytes(weights)};
    task.b_transposed = what.b_transposed;
    task.c = c.data.get();
    task.c_stride = static_cast<std::size_t>(what.columns);
    task.scratch = scratch[static_cast<std::size_t>(thread)].bytes;
    set_gemm_share(task, thread, threads);
    if (task.row_count > 0) (what.bf16 ? table.gemm_bf16 : table.gemm_f32)(task);
  });
  for (auto _ : state) state.SetIterationTime(seconds);
  const double operations =
      2.0 * static_cast<double>(what.rows * what.depth) * static_cast<double>(what.columns);
  state.counters["GFLOPS"] = operations / seconds / 1e9;
  state.counters["peak"] = peak / 1e9;
  state.counters["of_peak"] = operations / seconds / peak;
}

// SmolLM2-135M with 1,024 tokens, its output matrix with 168, adapters of rank 16.
constexpr Case kCases[] = {
    {"back", 1024, 1536, 576, DType::kQ4_1, true, false, false},
    {"back", 1024, 576, 1536, DType::kQ4_1, true, false, false},
    {"back", 1024, 576, 576, DType::kQ4_1, true, false, false},
    {"back", 1024, 576, 1536, DType::kQ4_K, true, false, false},
    {"back", 1024, 1536, 576, DType::kF32, false, false, false},
    {"back", 168, 49152, 576, DType::kQ8_0, true, false, false},
    {"back", 16, 1536, 576, DType::kQ4_1, true, false, false},
    {"outer", 1536, 1024, 576, DType::kF32, false, true, false},
    {"outer", 16, 1024, 576, DType::kF32, false, true, false},
    {"outer", 1536, 1024, 16, DType::kF32, false, true, false},
    {"forward", 1024, 576, 1536, DType::kF32, false, false, true},
    {"forward", 1024, 576, 16, DType::kF32, false, false, true},
    {"forward", 1024, 16, 1536, DType::kF32, false, false, true},
    {"forward", 1024, 576, 1536, DType::kQ4_1, true, false, true},
    {"bf16_back", 1024, 1536, 576, DType::kQ4_1, true, false, false, true},
    {"bf16_outer", 1536, 1024, 576, DType::kF32, false, true, false, true},
    {"bf16_forward", 1024, 576, 1536, DType::kF32, false, false, true, true},
};

const bool kRegistered = [] {
  for (const KernelTable* table : available_kernels()) {
    if (table == available_kernels().front() && available_kernels().size() > 1) continue;
    for (const int threads : {1, 2}) {
      for (const Case& what : kCases) {
        const std::string name = std::string("gemm_") + what.name + '/' + table->isa + '/' +
                                 std::string(dtype_name(what.dtype)) + '/' +
                                 std::to_string(what.rows) + 'x' + std::to_string(what.depth) +
                                 'x' + std::to_string(what.columns) +
                                 "/threads:" + std::to_string(threads);
        benchmark::RegisterBenchmark(
            name.c_str(),
            [&what, table, threads](benchmark::State& state) { run(state, *table, what, threads); })
            ->UseManualTime()
            ->Iterations(1);
      }
    }
  }
  return true;
}();

}  // namespace
}  // namespace hone::kernels

// SPDX-License-Identifier: Apache-2.0
#include "cli/bench_kernels.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>

#include "base/random.h"
#include "base/threads.h"
#include "engine/limits.h"
#include "kernels/matmul.h"
#include "kernels/registry.h"
#include "quant/codec.h"

namespace hone::cli {
namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// The fastest of some runs: other work on the machine only adds time.
template <typename Function>
double fastest(const Function& function) {
  double best = 1e9;
  const double begin = now();
  for (int i = 0; i < 5 || (now() - begin < 0.05 && i < 1000); ++i) {
    const double start = now();
    function();
    best = std::min(best, now() - start);
  }
  return best;
}

struct Row {
  std::string format;
  int tokens = 0;
  double operations = 0;  // a second
  double bytes = 0;       // a second
};

// (rows, columns) as in a small model's MLP, several of them so that they exceed the L2.
constexpr std::int64_t kRows = 6144;
constexpr std::int64_t kColumns = 1536;

Row measure(DType dtype, int tokens, ThreadPool& pool) {
  const auto layout = kernels::packed_layout(dtype, kRows, kColumns);
  Random random(3);
  std::vector<float> values(static_cast<std::size_t>(kColumns));
  std::vector<std::byte> row(static_cast<std::size_t>(dtype_bytes(dtype, kColumns)));
  std::vector<std::byte> source;
  for (float& value : values) value = random.normal();
  quant::find_codec(dtype)->encode(values, {}, row);
  for (std::int64_t i = 0; i < kRows; ++i) source.insert(source.end(), row.begin(), row.end());
  std::vector<std::byte> packed(static_cast<std::size_t>(layout->total_bytes) + 64);
  const std::size_t shift = 64 - reinterpret_cast<std::uintptr_t>(packed.data()) % 64;
  const std::span<std::byte> weights =
      std::span(packed).subspan(shift, static_cast<std::size_t>(layout->total_bytes));
  kernels::pack_panels(*layout, source, 0, layout->panels(), weights);
  const auto count = static_cast<std::size_t>(tokens) * kColumns;
  std::vector<std::int8_t> codes(count, 3);
  std::vector<float> scales(count / 32, 0.01f);
  std::vector<float> sums(count / 32, 0.96f);
  std::vector<float> out(static_cast<std::size_t>(tokens) * kRows);
  kernels::MatmulTask task;
  task.layout = *layout;
  task.weights = weights;
  task.tokens = tokens;
  task.int8 = {codes.data(), scales.data(), sums.data()};
  task.out = out.data();
  task.out_stride = static_cast<std::size_t>(kRows);
  const double seconds = fastest([&] {
    pool.run([&](int thread) {
      kernels::MatmulTask part = task;
      const Range panels = share_of(layout->panels(), thread, pool.size());
      part.first_panel = panels.begin;
      part.panel_count = panels.end - panels.begin;
      kernels::kernels().int8_matmul(part);
    });
  });
  return {std::string(dtype_name(dtype)), tokens,
          2.0 * static_cast<double>(kRows * kColumns) * tokens / seconds,
          static_cast<double>(layout->total_bytes) / seconds};
}

}  // namespace

Status bench_kernels(std::int64_t threads, Output& output) {
  ThreadPool pool(static_cast<int>(threads));
  const engine::MachineLimits limits = engine::measure_limits(pool, 0.2);
  Json rows = Json::array();
  Table table({"matmul", "tokens", "GOPS", "of int8 peak", "GB/s", "of bandwidth"}, "lrrrrr");
  const auto percent = [](double part, double whole) {
    return whole > 0 ? fmt::format("{:.0f} %", 100 * part / whole) : std::string("-");
  };
  for (const DType dtype :
       {DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ8_0, DType::kQ4_K, DType::kQ6_K}) {
    for (const int tokens : {1, 8, 256}) {
      const Row row = measure(dtype, tokens, pool);
      table.row({row.format, fmt::format("{}", tokens),
                 fmt::format("{:.0f}", row.operations * 1e-9),
                 percent(row.operations, limits.int8_operations),
                 fmt::format("{:.1f}", row.bytes * 1e-9), percent(row.bytes, limits.read_bytes)});
      rows.push_back(Json{{"format", row.format},
                          {"tokens", tokens},
                          {"operations_per_second", row.operations},
                          {"bytes_per_second", row.bytes}});
    }
  }
  if (output.json()) {
    output.document(Json{{"read_bytes_per_second", limits.read_bytes},
                         {"int8_operations_per_second", limits.int8_operations},
                         {"bf16_operations_per_second", limits.bf16_operations},
                         {"f32_operations_per_second", limits.f32_operations},
                         {"matmul", rows}});
    return {};
  }
  output.print(fmt::format(
      "{} threads, {} kernels: reads {:.1f} GB/s; int8 {:.0f}, bf16 {:.0f}, f32 {:.0f} GOPS\n",
      pool.size(), kernels::kernels().isa, limits.read_bytes * 1e-9, limits.int8_operations * 1e-9,
      limits.bf16_operations * 1e-9, limits.f32_operations * 1e-9));
  output.print(table.text());
  return {};
}

}  // namespace hone::cli

// SPDX-License-Identifier: Apache-2.0
#include "engine/limits.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <new>

#include "base/system.h"
#include "kernels/registry.h"

namespace hone::engine {
namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

using Peak = kernels::PeakRun (*)(std::uint64_t);

double operations_per_second(ThreadPool& pool, Peak peak, double seconds) {
  if (peak(1).operations == 0) return 0;
  std::atomic<std::uint64_t> operations{0};
  std::atomic<double> checksum{0};  // keeps the work alive
  double best = 0;
  std::uint64_t iterations = 1 << 12;
  const auto begin = std::chrono::steady_clock::now();
  do {
    operations = 0;
    const auto start = std::chrono::steady_clock::now();
    pool.run([&](int) {
      const kernels::PeakRun run = peak(iterations);
      operations += run.operations;
      checksum = run.checksum;
    });
    const double took = seconds_since(start);
    best = std::max(best, static_cast<double>(operations.load()) / took);
    if (took < 0.02) iterations *= 2;  // long enough that starting the threads is nothing
  } while (seconds_since(begin) < seconds);
  return best;
}

double bytes_per_second(ThreadPool& pool, double seconds) {
  // Several times the last cache where there is room, so that memory is what is measured.
  const std::int64_t room = memory_info().available / 4;
  const std::int64_t wanted =
      std::clamp<std::int64_t>(4 * cpu_info().l3, 256 << 20, std::int64_t{1} << 30);
  const std::int64_t words = std::min(room, wanted) / 8;
  if (words < 1024) return 0;
  const std::unique_ptr<std::uint64_t[]> buffer(new (std::nothrow) std::uint64_t[words]);
  if (buffer == nullptr) return 0;
  const std::span<std::uint64_t> all(buffer.get(), static_cast<std::size_t>(words));
  const auto part = [&](int thread) {
    const Range range = share_of(words, thread, pool.size(), 512);
    return all.subspan(static_cast<std::size_t>(range.begin),
                       static_cast<std::size_t>(range.end - range.begin));
  };
  // Written first: untouched pages are all the same page of zeros.
  pool.run([&](int thread) { std::ranges::fill(part(thread), 1); });
  std::atomic<std::uint64_t> sum{0};
  double best = 0;
  const auto begin = std::chrono::steady_clock::now();
  do {
    const auto start = std::chrono::steady_clock::now();
    pool.run(
        [&](int thread) { sum += kernels::kernels().read_bandwidth(std::as_bytes(part(thread))); });
    best = std::max(best, static_cast<double>(words) * 8 / seconds_since(start));
  } while (seconds_since(begin) < seconds);
  return sum.load() == 0 ? 0 : best;
}

}  // namespace

MachineLimits measure_limits(ThreadPool& pool, double seconds) {
  const kernels::KernelTable& table = kernels::kernels();
  MachineLimits limits;
  limits.read_bytes = bytes_per_second(pool, seconds);
  limits.int8_operations = operations_per_second(pool, table.peak_int8, seconds);
  limits.bf16_operations = operations_per_second(pool, table.peak_bf16, seconds);
  limits.f32_operations = operations_per_second(pool, table.peak_f32, seconds);
  return limits;
}

cost::Machine machine_of(const MachineLimits& limits) {
  cost::Machine machine;
  if (limits.read_bytes > 0) machine.bytes = limits.read_bytes;
  if (limits.f32_operations > 0) machine.f32_operations = limits.f32_operations;
  if (limits.int8_operations > 0) machine.int8_operations = limits.int8_operations;
  return machine;
}

}  // namespace hone::engine

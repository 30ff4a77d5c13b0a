// Elements a second of each update rule, beside the bandwidth that it needs.
// SPDX-License-Identifier: Apache-2.0
//
//   hone_optim_bench --benchmark_filter='/matrix' --benchmark_counters_tabular=true
//
// `vector`: 16 M elements, 64 MB of weights, from memory (element-wise rules). `matrix`: one of
// 576 x 1536, a projection of SmolLM2-135M. `bytes` is what a step must move: weights read and
// written, gradient read, state read and written. `copy` moves as much between two buffers.
#include <benchmark/benchmark.h>

#include <cstring>
#include <string>
#include <vector>

#include "optim/registry.h"

namespace hone::optim {
namespace {

void step(benchmark::State& run, const UpdateRule* rule, Shape2 shape) {
  const Settings settings(rule->defaults);
  const auto size = static_cast<std::size_t>(shape.elements());
  std::vector<float> weights(size, 1.0f), gradient(size);
  for (std::size_t i = 0; i < size; ++i) {
    gradient[i] = static_cast<float>(i * 2654435761u % 1000u) * 1e-3f - 0.5f;
  }
  std::vector<std::byte> state(rule->state_bytes(shape, settings));
  initialize_state(*rule, state, shape, settings);
  std::int64_t count = 0;
  for (auto _ : run) {
    rule->update({.weights = weights,
                  .gradient = gradient,
                  .state = state,
                  .shape = shape,
                  .step = ++count,
                  .learning_rate = 1e-4,
                  .weight_decay = 0.01,
                  .gradient_scale = 0.5f,
                  .settings = settings});
    benchmark::ClobberMemory();
  }
  run.SetItemsProcessed(count * shape.elements());
  run.SetBytesProcessed(count *
                        (shape.elements() * 12 + 2 * static_cast<std::int64_t>(state.size())));
}

void copy(benchmark::State& run, std::size_t bytes) {
  std::vector<std::byte> from(bytes, std::byte{1}), to(bytes, std::byte{2});
  std::int64_t count = 0;
  for (auto _ : run) {
    std::memcpy(to.data(), from.data(), bytes);
    benchmark::ClobberMemory();
    ++count;
  }
  run.SetBytesProcessed(2 * count * static_cast<std::int64_t>(bytes));
}

const bool kRegistered = [] {
  benchmark::RegisterBenchmark("copy/vector", copy, std::size_t{64} << 20);
  for (const UpdateRule* rule : all_rules()) {
    const std::string name(rule->name);
    if (rule->element_wise || rule->name == "lion_k" || rule->name == "adafactor") {
      benchmark::RegisterBenchmark((name + "/vector").c_str(), step, rule,
                                   Shape2{1, std::int64_t{1} << 24});
    }
    benchmark::RegisterBenchmark((name + "/matrix").c_str(), step, rule, Shape2{576, 1536});
  }
  return true;
}();

}  // namespace
}  // namespace hone::optim

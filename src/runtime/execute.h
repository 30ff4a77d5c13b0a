// Runs programs on a thread pool.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/threads.h"
#include "runtime/program.h"

namespace hone::runtime {

// Memory that runs reuse: grows to the largest program, never shrinks. Pages that no program has
// touched cost nothing.
class Workspace {
 public:
  // At least `bytes` bytes, aligned to 64; valid until the next call. `huge`: in huge pages where
  // the system has them: fewer faults, but memory becomes resident 2 MB at a time.
  std::byte* reserve(std::size_t bytes, bool huge = true);
  std::size_t capacity() const { return capacity_; }

 private:
  struct Free {
    void operator()(std::byte* memory) const;
  };
  std::unique_ptr<std::byte, Free> memory_;
  std::size_t capacity_ = 0;
};

// Bytes that a run of the program needs beside weights, inputs and caches.
std::size_t workspace_bytes(const Program& program);

// Nanoseconds of every step, summed over runs; filled by thread 0, barriers included.
struct Profile {
  std::vector<std::int64_t> step_nanoseconds;
  std::int64_t runs = 0;
};

struct Bindings {
  std::span<const Weight* const> weights;              // one a Program::parameters
  std::span<const std::span<const std::byte>> inputs;  // one a Program::inputs, of its size
  std::span<const CachePages> caches;                  // one a Program::caches
};

// Runs all steps. Outputs lie in the workspace at their places until the next run: `output` gives
// them. The pool must have Program::threads threads. Fails only where weights are not in memory and
// cannot be brought (Weight::residency): outputs mean nothing then.
Status execute(const Program& program, const Bindings& bindings, ThreadPool& pool,
               Workspace& workspace, Profile* profile = nullptr);
std::span<const float> output(const Program& program, Workspace& workspace, std::size_t index);

}  // namespace hone::runtime

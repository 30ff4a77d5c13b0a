// SPDX-License-Identifier: Apache-2.0
#include "runtime/execute.h"

#include <sys/mman.h>

#include <chrono>
#include <new>

namespace hone::runtime {
namespace {

constexpr std::size_t kHugePage = 2 << 20;

struct Sizes {
  std::size_t arena, private_all, total;
};

Sizes sizes_of(const Program& program) {
  const auto threads = static_cast<std::size_t>(program.threads);
  const std::size_t arena = (program.arena_bytes + 63) / 64 * 64;
  const std::size_t private_all = program.private_bytes * threads;
  return {arena, private_all, arena + private_all + program.scratch_bytes * threads};
}

}  // namespace

void Workspace::Free::operator()(std::byte* memory) const {
  ::operator delete(memory, static_cast<std::align_val_t>(kHugePage));
}

std::byte* Workspace::reserve(std::size_t bytes, bool huge) {
  if (bytes > capacity_) {
    memory_.reset();
    memory_.reset(
        static_cast<std::byte*>(::operator new(bytes, static_cast<std::align_val_t>(kHugePage))));
    if (huge && bytes >= kHugePage) {
      ::madvise(memory_.get(), bytes / kHugePage * kHugePage, MADV_HUGEPAGE);
    }
    capacity_ = bytes;
  }
  return memory_.get();
}

std::size_t workspace_bytes(const Program& program) { return sizes_of(program).total; }

Status execute(const Program& program, const Bindings& bindings, ThreadPool& pool,
               Workspace& workspace, Profile* profile) {
  const Sizes sizes = sizes_of(program);
  Frame frame;
  frame.arena = workspace.reserve(sizes.total);
  frame.private_memory = frame.arena + sizes.arena;
  frame.private_stride = program.private_bytes;
  frame.scratch = frame.private_memory + sizes.private_all;
  frame.scratch_stride = program.scratch_bytes;
  frame.weights = bindings.weights;
  frame.inputs = bindings.inputs;
  frame.caches = bindings.caches;
  frame.barrier = &pool.barrier();
  if (profile != nullptr) {
    profile->step_nanoseconds.resize(program.steps.size(), 0);
    ++profile->runs;
  }
  Residency* residency = nullptr;
  for (const Weight* weight : bindings.weights) {
    if (weight->residency != nullptr) residency = weight->residency;
  }
  if (residency != nullptr) HONE_RETURN_IF_ERROR(residency->begin(program, bindings));
  pool.run([&](int thread) {
    const Worker worker{thread, pool.size()};
    auto before = std::chrono::steady_clock::now();
    for (std::size_t i = 0; i < program.steps.size(); ++i) {
      const Step& step = program.steps[i];
      if (residency != nullptr && !residency->wait(i, thread)) return;
      step.run(frame, worker);
      if (step.barrier) pool.barrier().arrive_and_wait(thread);
      if (residency != nullptr && step.barrier && thread == 0) residency->done(i);
      if (profile != nullptr && thread == 0) {
        const auto now = std::chrono::steady_clock::now();
        profile->step_nanoseconds[i] +=
            std::chrono::duration_cast<std::chrono::nanoseconds>(now - before).count();
        before = now;
      }
    }
  });
  return residency != nullptr ? residency->end() : Status();
}

std::span<const float> output(const Program& program, Workspace& workspace, std::size_t index) {
  const Slot& slot = program.outputs[index];
  const Sizes sizes = sizes_of(program);
  const std::byte* base = workspace.reserve(sizes.total);
  if (slot.place.space == Space::kPrivate) base += sizes.arena;  // thread 0's copy
  return {reinterpret_cast<const float*>(base + slot.place.at), slot.place.bytes / sizeof(float)};
}

}  // namespace hone::runtime

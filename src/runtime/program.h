// A program: a planned graph as a flat list of kernel calls over one arena.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/threads.h"
#include "ir/op.h"
#include "kernels/attention.h"
#include "runtime/plan.h"
#include "runtime/residency.h"

namespace hone::runtime {

// Bytes of one weight in the layout that a program asked for. Programs keep the address of the
// Weight, not of its bytes: replacing the bytes patches every program that uses it.
struct Weight {
  std::span<const std::byte> bytes;
  // The same bytes where a program may change them (a trained parameter); empty otherwise.
  std::span<std::byte> writable = {};
  // Who brings the bytes before a step that reads them, where they are not in memory all the time.
  Residency* residency = nullptr;
};

// The pages of one layer's keys and values.
struct CachePages {
  kernels::CacheLayout layout;
  std::span<std::byte> keys;
  std::span<std::byte> values;
};

enum class Space : std::uint8_t {
  kArena,      // shared by all threads
  kPrivate,    // every thread has its own copy: a cheap value that all compute, without a barrier
  kParameter,  // a weight
  kInput,      // given by the caller at each run
  kCache,      // state
};

// Where a value's bytes are: an offset in the arena, or an index into a table.
struct Place {
  Space space = Space::kArena;
  std::size_t at = 0;
  std::size_t bytes = 0;
};

struct Worker {
  int thread = 0;
  int threads = 1;
};

// What a step sees of one run. Resolves places to memory.
struct Frame {
  std::byte* arena = nullptr;
  std::byte* private_memory = nullptr;  // thread t's part begins at t * private_stride
  std::size_t private_stride = 0;
  std::byte* scratch = nullptr;  // thread t's part begins at t * scratch_stride
  std::size_t scratch_stride = 0;
  std::span<const Weight* const> weights;
  std::span<const std::span<const std::byte>> inputs;
  std::span<const CachePages> caches;
  Barrier* barrier = nullptr;  // of the pool that runs

  // For a step in several phases: all threads pass it together. None of them may leave it out.
  void wait(Worker worker) const {
    if (worker.threads > 1) barrier->arrive_and_wait(worker.thread);
  }
  std::span<std::byte> bytes(const Place& place, int thread) const {
    std::byte* base = place.space == Space::kArena
                          ? arena
                          : private_memory + static_cast<std::size_t>(thread) * private_stride;
    return {base + place.at, place.bytes};
  }
  // A value that this run computes.
  std::span<float> floats(const Place& place, int thread) const {
    const std::span<std::byte> raw = bytes(place, thread);
    return {reinterpret_cast<float*>(raw.data()), raw.size() / sizeof(float)};
  }
  // Any value, for reading.
  std::span<const std::byte> read(const Place& place, int thread) const {
    if (place.space == Space::kParameter) return weights[place.at]->bytes;
    if (place.space == Space::kInput) return inputs[place.at];
    return bytes(place, thread);
  }
  std::span<const float> read_floats(const Place& place, int thread) const {
    const auto raw = read(place, thread);
    return {reinterpret_cast<const float*>(raw.data()), raw.size() / sizeof(float)};
  }
  std::span<const std::int32_t> read_integers(const Place& place, int thread) const {
    const auto raw = read(place, thread);
    return {reinterpret_cast<const std::int32_t*>(raw.data()), raw.size() / sizeof(std::int32_t)};
  }
  std::span<std::byte> scratch_of(int thread) const {
    return {scratch + static_cast<std::size_t>(thread) * scratch_stride, scratch_stride};
  }
};

// Runs one thread's share of a kernel call.
using StepFunction = std::function<void(const Frame& frame, Worker worker)>;

// A step reads a weight.
struct WeightUse {
  std::int32_t parameter = 0;    // index into Program::parameters
  std::int32_t rows_input = -1;  // of it only the rows that this input names; -1: all
};

struct Step {
  StepFunction run;
  bool barrier = true;         // whether others must wait for its results
  std::int32_t operation = 0;  // in the graph that it came from
  std::string_view op;
  ir::Cost cost;
  std::vector<WeightUse> weights;
};

// A value that comes from outside, or goes there.
struct Slot {
  std::string name;
  ir::Type type;
  Place place;
};

struct Program {
  std::string name;
  std::vector<Step> steps;
  std::vector<Slot> inputs;      // Place::at is the index into Frame::inputs
  std::vector<Slot> parameters;  // … into Frame::weights
  std::vector<Slot> caches;      // … into Frame::caches; the name is the layer's number
  std::vector<Slot> outputs;
  int threads = 1;
  std::size_t arena_bytes = 0;
  std::size_t private_bytes = 0;  // of one thread
  std::size_t scratch_bytes = 0;  // of one thread

  // What the plan laid out, for pictures and tests: value, lifetime, place.
  struct Planned {
    std::string label;
    Lifetime life;
    Place place;
  };
  std::vector<Planned> planned;
};

}  // namespace hone::runtime

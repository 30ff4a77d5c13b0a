// Weights that are not in memory all the time: who brings them before the step that reads them, and
// takes them away after.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#include "base/status.h"

namespace hone::runtime {

struct Program;
struct Bindings;

// Known to a run through the weights that are its (Weight::residency). One run at a time.
class Residency {
 public:
  virtual ~Residency() = default;

  // A run of the program begins: loading starts in the order of its steps.
  virtual Status begin(const Program& program, const Bindings& bindings) = 0;
  // All threads, before each step: returns when what the step reads is in memory. False: it will
  // never be; all threads get the same answer for a step, and leave the run.
  virtual bool wait(std::size_t step, int thread) = 0;
  // Thread 0, once all threads are past the step: what only it and steps before read may go.
  virtual void done(std::size_t step) = 0;
  // All threads have left the run. The error, if loading failed.
  virtual Status end() = 0;
};

}  // namespace hone::runtime

// What this machine can do at most, measured: bytes read and operations a second, all threads
// together.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/threads.h"
#include "cost/roofline.h"

namespace hone::engine {

// Per second; 0 where the processor has no such instruction, or there was no memory to measure in.
struct MachineLimits {
  double read_bytes = 0;
  double int8_operations = 0;  // a multiply and an add are two
  double bf16_operations = 0;
  double f32_operations = 0;
};

// Takes about four times `seconds`. The best of several runs each: other work on the machine only
// makes a run slower.
MachineLimits measure_limits(ThreadPool& pool, double seconds = 0.3);

// The same for the cost of graphs.
cost::Machine machine_of(const MachineLimits& limits);

}  // namespace hone::engine

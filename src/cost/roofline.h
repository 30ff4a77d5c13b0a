// What a graph will take, by the roofline (Williams, Waterman, Patterson 2009): each operation the
// larger of its arithmetic and its memory traffic at the machine's limits.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "ir/graph.h"

namespace hone::cost {

// Limits of all threads together, per second.
struct Machine {
  double bytes = 30e9;
  double f32_operations = 200e9;
  double int8_operations = 800e9;
};

struct Estimate {
  double operations = 0;
  double bytes = 0;
  double seconds = 0;

  Estimate& operator+=(const Estimate& other) {
    operations += other.operations;
    bytes += other.bytes;
    seconds += other.seconds;
    return *this;
  }
};

Estimate estimate(const ir::Graph& graph, const Machine& machine);

}  // namespace hone::cost

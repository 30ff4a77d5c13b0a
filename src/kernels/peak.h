// What the measurements of the machine's limits give back (peak.inl).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace hone::kernels {

// A multiply and an add are two operations. 0 operations: this CPU has no such instruction.
// The checksum depends on every operation, so that no compiler drops them; use it.
struct PeakRun {
  std::uint64_t operations = 0;
  double checksum = 0.0;
};

}  // namespace hone::kernels

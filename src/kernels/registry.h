// The table of kernels of each instruction set, and the choice of the best that this CPU can run.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "kernels/extended_sum.h"
#include "kernels/matmul.h"
#include "kernels/norm.h"
#include "kernels/peak.h"
#include "kernels/update.h"

namespace hone::kernels {

// One function pointer a line of list.inc: `kernels().rms_norm(x, weight, epsilon, out)`.
struct KernelTable {
  const char* isa;  // "scalar", "avx2", "avx512"
#define HONE_KERNEL(name, result, parameters) result(*name) parameters;
#include "kernels/list.inc"
#undef HONE_KERNEL
};

// The tables that this CPU and operating system can run, from the plainest to the best; never
// empty.
std::span<const KernelTable* const> available_kernels();

// The best of them, chosen once. For debugging the environment variable HONE_ISA names another;
// a name that is unknown, or that this CPU cannot run, is ignored.
const KernelTable& kernels();

// The table of that name, or nullptr if there is none or this CPU cannot run it.
const KernelTable* find_kernels(std::string_view isa);

}  // namespace hone::kernels

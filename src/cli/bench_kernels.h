// The kernels part of `hone bench`.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "cli/output.h"

namespace hone::cli {

// Quantized matmuls by format and number of tokens, and the softmax forms, with shares of limits
// measured in the same run.
Status bench_kernels(std::int64_t threads, Output& output);

}  // namespace hone::cli

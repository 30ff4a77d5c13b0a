// Seconds of one product of training in several arithmetics, in one run.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "base/status.h"
#include "base/threads.h"
#include "tune/small_model.h"

namespace hone::tune {

struct ProductShape {
  std::int64_t tokens = 0, columns = 0, rows = 0;  // (N, K) times (R, K) transposed
};

// Median seconds of y = x W^T in each arithmetic (its `after`), over `calls` interleaved calls,
// with all that it does to both operands at every call.
Result<std::vector<double>> seconds_of_product(ThreadPool& pool, const ProductShape& shape,
                                               const std::vector<Arithmetic>& arithmetics,
                                               std::int64_t calls);

}  // namespace hone::tune

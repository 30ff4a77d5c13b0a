// Workers as threads of one process: for tests and recipes, which need no mpirun then.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "base/status.h"
#include "tune/workers.h"

namespace hone::tune {

// Runs `body` once for each of `size` ranks, each on a thread of its own, and returns when all have
// returned: the first rank's error, if there is one. A rank whose body ends with an error lets the
// others know at their next call, as a process that ends does.
Status run_together(int size, const std::function<Status(Workers& workers)>& body);

}  // namespace hone::tune

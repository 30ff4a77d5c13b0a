// Updates inside of the program: each parameter steps as soon as its gradient is there.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/status.h"
#include "ir/graph.h"

namespace hone::passes {

// Every output "gradient of NAME" becomes an `update` of the parameter NAME, placed behind the
// gradient and behind the last operation that reads the parameter, so that one gradient at a time
// is in memory. Run it after all passes that move operations.
Result<ir::Graph> add_updates(const ir::Graph& graph);

}  // namespace hone::passes

// Trades arithmetic for memory: values that the backward operations read are made again there.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "base/status.h"
#include "cost/roofline.h"
#include "ir/graph.h"

namespace hone::passes {

struct RecomputeOptions {
  std::string loss = "loss";        // what comes after the operation that makes it is backward
  std::int64_t budget = INT64_MAX;  // bytes of values kept from the forward to the backward part
  cost::Machine machine;            // by whose limits costs are compared
};

struct RecomputeReport {
  std::int64_t kept_before = 0;  // bytes, if nothing is made again
  std::int64_t kept = 0;
  std::int64_t again = 0;    // operations made again
  double seconds_again = 0;  // by the roofline
};

// The same values. What is dropped first is what costs least time for its bytes (the greedy choice
// of Chen et al. 2016, "Training deep nets with sublinear memory cost", with costs instead of a
// fixed segment length). Stops above the budget where nothing is left to drop; the report tells.
Result<ir::Graph> recompute(const ir::Graph& graph, const RecomputeOptions& options,
                            RecomputeReport* report = nullptr);

}  // namespace hone::passes

// SPDX-License-Identifier: Apache-2.0
#include "cost/roofline.h"

#include <algorithm>

namespace hone::cost {

Estimate estimate(const ir::Graph& graph, const Machine& machine) {
  Estimate total;
  for (const ir::Operation& operation : graph.operations) {
    if (operation.op->cost == nullptr) continue;
    const ir::Cost cost = operation.op->cost(graph.types(operation.operands),
                                             graph.types(operation.results), operation.attributes);
    const bool integer = !operation.operands.empty() &&
                         graph.type(operation.operands[0]).layout == ir::Layout::kInt8Rows;
    const double peak = integer ? machine.int8_operations : machine.f32_operations;
    total.operations += cost.operations;
    total.bytes += cost.bytes;
    total.seconds += std::max(cost.operations / peak, cost.bytes / machine.bytes);
  }
  return total;
}

}  // namespace hone::cost

// Fuzzes the reader of graphs as text, with the type rules and costs of every op; what it takes
// prints, and what was printed reads as the same graph.
// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "ir/text.h"
#include "ops/registry.h"

namespace {

double total_cost(const hone::ir::Graph& graph) {
  double total = 0;
  for (const hone::ir::Operation& operation : graph.operations) {
    if (operation.op->cost == nullptr) continue;
    const hone::ir::Cost cost = operation.op->cost(
        graph.types(operation.operands), graph.types(operation.results), operation.attributes);
    total += cost.operations + cost.bytes;
  }
  return total;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto graph = hone::ir::parse(text, hone::ops::find_op);
  if (!graph) return graph.error().text().empty() ? std::abort(), 0 : 0;
  if (!(total_cost(*graph) >= 0)) std::abort();
  const std::string printed = hone::ir::print(*graph);
  const auto again = hone::ir::parse(printed, hone::ops::find_op);
  if (!again || hone::ir::print(*again) != printed) std::abort();
  return 0;
}

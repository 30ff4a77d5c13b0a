// Matmuls of the same rows with several weights (queries, keys, values) become one step.
// SPDX-License-Identifier: Apache-2.0
#include <unordered_map>

#include "ops/registry.h"
#include "passes/pass.h"

namespace hone::passes {
namespace {

// Matmuls with attributes (a rounding) have no place in a group.
bool joins(const ir::Graph& graph, const ir::Operation& operation) {
  return operation.is("matmul") && operation.attributes.empty() &&
         graph.producer(operation.operands[1]).is("parameter");
}

// The members of a group by their common operand; the group is emitted where its first member
// stood, which is right because weights are sources and stand before every use.
Result<ir::Graph> run(const ir::Graph& graph) {
  std::unordered_map<ir::ValueId, std::vector<const ir::Operation*>> readers;
  for (const ir::Operation& operation : graph.operations) {
    if (joins(graph, operation)) {
      readers[operation.operands[0]].push_back(&operation);
    }
  }
  ir::Rewriter rewriter(graph, ops::find_op);
  for (const ir::Operation& operation : graph.operations) {
    if (operation.is("parameter")) rewriter.copy(operation);
  }
  for (const ir::Operation& operation : graph.operations) {
    if (operation.is("parameter")) continue;
    const auto group =
        joins(graph, operation) ? readers.find(operation.operands[0]) : readers.end();
    const bool member = group != readers.end() && group->second.size() > 1;
    if (!member) {
      rewriter.copy(operation);
      continue;
    }
    if (&operation != group->second.front()) continue;
    std::vector<ir::ValueId> operands = {rewriter.map(operation.operands[0])};
    for (const ir::Operation* matmul : group->second) {
      operands.push_back(rewriter.map(matmul->operands[1]));
    }
    const auto made = rewriter.emit("matmul_group", std::move(operands));
    for (std::size_t i = 0; i < made.size(); ++i) {
      rewriter.replace(group->second[i]->results[0], made[i]);
    }
  }
  return rewriter.finish();
}

}  // namespace

const Pass& fuse_group_pass() {
  static const Pass kPass{"fuse_group", "groups matmuls that read the same rows",
                          PassKind::kRewrite, 0, run};
  return kPass;
}

}  // namespace hone::passes

// Removes operations whose results nobody uses; inputs stay, because callers bind them by place.
// SPDX-License-Identifier: Apache-2.0
#include "ops/registry.h"
#include "passes/pass.h"

namespace hone::passes {
namespace {

Result<ir::Graph> run(const ir::Graph& graph) {
  std::vector<bool> live(graph.values.size(), false);
  std::vector<bool> keep(graph.operations.size(), false);
  for (const ir::ValueId id : graph.outputs) live[static_cast<std::size_t>(id)] = true;
  for (std::size_t i = graph.operations.size(); i-- > 0;) {
    const ir::Operation& operation = graph.operations[i];
    bool needed = operation.op->effect || operation.is("input");
    for (const ir::ValueId id : operation.results)
      needed = needed || live[static_cast<std::size_t>(id)];
    if (!needed) continue;
    keep[i] = true;
    for (const ir::ValueId id : operation.operands) live[static_cast<std::size_t>(id)] = true;
  }
  ir::Rewriter rewriter(graph, ops::find_op);
  for (std::size_t i = 0; i < graph.operations.size(); ++i) {
    if (keep[i]) rewriter.copy(graph.operations[i]);
  }
  return rewriter.finish();
}

}  // namespace

const Pass& dce_pass() {
  static const Pass kPass{"dce", "removes operations without uses", PassKind::kRewrite, 0, run};
  return kPass;
}

}  // namespace hone::passes

// Replaces fused operations by the small ones that they stand for: the way back from every fusion.
// SPDX-License-Identifier: Apache-2.0
#include "ops/registry.h"
#include "passes/pass.h"

namespace hone::passes {
namespace {

Result<ir::Graph> run(const ir::Graph& graph) {
  ir::Rewriter rewriter(graph, ops::find_op);
  for (const ir::Operation& operation : graph.operations) {
    if (operation.op->expand == nullptr) {
      rewriter.copy(operation);
      continue;
    }
    const ir::Emit emit = [&](std::string_view op, std::vector<ir::ValueId> operands,
                              ir::Attributes attributes) {
      auto results = rewriter.emit(op, std::move(operands), std::move(attributes));
      // After an error a stand-in keeps the expansion going; finish() reports the error.
      return results.empty() ? std::vector<ir::ValueId>{0} : results;
    };
    const auto operands = rewriter.map(operation.operands);
    const auto results =
        operation.op->expand(operands, graph.types(operation.operands), operation.attributes, emit);
    for (std::size_t i = 0; i < operation.results.size() && i < results.size(); ++i) {
      rewriter.replace(operation.results[i], results[i]);
    }
  }
  return rewriter.finish();
}

}  // namespace

const Pass& expand_pass() {
  static const Pass kPass{"expand", "replaces fused operations by small ones", PassKind::kRewrite,
                          0, run};
  return kPass;
}

}  // namespace hone::passes

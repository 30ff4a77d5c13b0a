// A matmul whose only use is an addition to the residual stream adds while it stores.
// SPDX-License-Identifier: Apache-2.0
#include "ops/registry.h"
#include "passes/pass.h"

namespace hone::passes {
namespace {

Result<ir::Graph> run(const ir::Graph& graph) {
  const auto uses = graph.use_counts();
  ir::Rewriter rewriter(graph, ops::find_op);
  for (const ir::Operation& operation : graph.operations) {
    std::vector<ir::ValueId> made;
    const bool same = operation.is("add") &&
                      graph.type(operation.operands[0]) == graph.type(operation.operands[1]);
    for (const std::size_t side : {std::size_t{1}, std::size_t{0}}) {
      if (!same || !made.empty()) continue;
      const ir::ValueId product = operation.operands[side];
      const ir::Operation& matmul = graph.producer(product);
      const bool plain = matmul.is("matmul") && matmul.attributes.empty();
      if (!plain || uses[static_cast<std::size_t>(product)] != 1) continue;
      auto operands = rewriter.map(matmul.operands);
      operands.push_back(rewriter.map(operation.operands[1 - side]));
      made = rewriter.emit("matmul_add", std::move(operands));
    }
    if (made.size() == 1) {
      rewriter.replace(operation.results[0], made[0]);
    } else {
      rewriter.copy(operation);
    }
  }
  return rewriter.finish();
}

}  // namespace

const Pass& fuse_residual_pass() {
  static const Pass kPass{"fuse_residual", "fuses a matmul with the residual add that reads it",
                          PassKind::kRewrite, 0, run};
  return kPass;
}

}  // namespace hone::passes

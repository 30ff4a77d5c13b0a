// Products with random signs draw them as they multiply: the matrix is never in memory.
// SPDX-License-Identifier: Apache-2.0
#include "ops/registry.h"
#include "passes/pass.h"

namespace hone::passes {
namespace {

Result<ir::Graph> run(const ir::Graph& graph) {
  ir::Rewriter rewriter(graph, ops::find_op);
  for (const ir::Operation& operation : graph.operations) {
    const bool product = operation.is("matmul") && operation.attributes.empty() &&
                         graph.type(operation.operands[0]).layout == ir::Layout::kRowMajor;
    const ir::Operation* signs = product ? &graph.producer(operation.operands[1]) : nullptr;
    if (signs == nullptr || !signs->is("random_signs")) {
      rewriter.copy(operation);
      continue;
    }
    const auto made = rewriter.emit(
        "matmul_signs", {rewriter.map(operation.operands[0]), rewriter.map(signs->operands[0])},
        {{"tensor", signs->attributes.integer("tensor")},
         {"rows", signs->attributes.integer("rows")}});
    if (made.size() == 1) rewriter.replace(operation.results[0], made[0]);
  }
  return rewriter.finish();
}

}  // namespace

const Pass& fuse_signs_pass() {
  static const Pass kPass{"fuse_signs", "draws random signs where they are multiplied",
                          PassKind::kRewrite, 0, run};
  return kPass;
}

}  // namespace hone::passes

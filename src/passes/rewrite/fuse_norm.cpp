// Norm into what reads it: quantize(rms_norm(x)), and residual + rms_norm(x).
// SPDX-License-Identifier: Apache-2.0
#include "ops/registry.h"
#include "passes/pass.h"

namespace hone::passes {
namespace {

Result<ir::Graph> run(const ir::Graph& graph) {
  const auto uses = graph.use_counts();
  ir::Rewriter rewriter(graph, ops::find_op);
  const auto norm_of = [&](ir::ValueId id) -> const ir::Operation* {
    const ir::Operation& producer = graph.producer(id);
    return producer.is("rms_norm") && uses[static_cast<std::size_t>(id)] == 1 ? &producer : nullptr;
  };
  for (const ir::Operation& operation : graph.operations) {
    std::vector<ir::ValueId> made;
    if (operation.is("quantize")) {
      if (const ir::Operation* norm = norm_of(operation.operands[0])) {
        made = rewriter.emit("rms_norm_quantize", rewriter.map(norm->operands), norm->attributes);
      }
    } else if (operation.is("add") &&
               graph.type(operation.operands[0]) == graph.type(operation.operands[1])) {
      // Floating point addition commutes: the norm may be on either side.
      for (const std::size_t side : {std::size_t{1}, std::size_t{0}}) {
        const ir::Operation* norm = made.empty() ? norm_of(operation.operands[side]) : nullptr;
        if (norm == nullptr) continue;
        auto operands = rewriter.map(norm->operands);
        operands.push_back(rewriter.map(operation.operands[1 - side]));
        made = rewriter.emit("rms_norm_add", std::move(operands), norm->attributes);
      }
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

const Pass& fuse_norm_pass() {
  static const Pass kPass{"fuse_norm",
                          "fuses a norm with the quantize or residual add that reads it",
                          PassKind::kRewrite, 0, run};
  return kPass;
}

}  // namespace hone::passes

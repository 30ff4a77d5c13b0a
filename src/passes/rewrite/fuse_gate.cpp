// The gate of an MLP: activation(x gate) * (x up) becomes one step, and neither product is stored.
// SPDX-License-Identifier: Apache-2.0
#include "ops/registry.h"
#include "passes/pass.h"

namespace hone::passes {
namespace {

const ir::Operation* only_use(const ir::Graph& graph, const std::vector<std::int32_t>& uses,
                              ir::ValueId id) {
  return uses[static_cast<std::size_t>(id)] == 1 ? &graph.producer(id) : nullptr;
}

Result<ir::Graph> run(const ir::Graph& graph) {
  const auto uses = graph.use_counts();
  ir::Rewriter rewriter(graph, ops::find_op);
  for (const ir::Operation& operation : graph.operations) {
    std::vector<ir::ValueId> made;
    for (const std::size_t side : {std::size_t{0}, std::size_t{1}}) {
      if (!operation.is("multiply") || !made.empty()) continue;
      const ir::Operation* activation = only_use(graph, uses, operation.operands[side]);
      const ir::Operation* up = only_use(graph, uses, operation.operands[1 - side]);
      if (activation == nullptr || up == nullptr || !up->is("matmul") ||
          !(activation->is("silu") || activation->is("gelu"))) {
        continue;
      }
      const ir::Operation* gate = only_use(graph, uses, activation->operands[0]);
      if (gate == nullptr || !gate->is("matmul") || gate->operands[0] != up->operands[0] ||
          graph.type(gate->operands[1]) != graph.type(up->operands[1]) ||
          !gate->attributes.empty() || !up->attributes.empty()) {
        continue;
      }
      made = rewriter.emit("matmul_gated",
                           {rewriter.map(gate->operands[0]), rewriter.map(gate->operands[1]),
                            rewriter.map(up->operands[1])},
                           {{"activation", std::string(activation->op->name)}});
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

const Pass& fuse_gate_pass() {
  static const Pass kPass{"fuse_gate", "fuses gate, activation, up and their product",
                          PassKind::kRewrite, 0, run};
  return kPass;
}

}  // namespace hone::passes

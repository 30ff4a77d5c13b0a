// Puts weight matrices into the layout that the kernels read: 16 rows interleaved.
// SPDX-License-Identifier: Apache-2.0
#include "ops/registry.h"
#include "passes/pass.h"

namespace hone::passes {
namespace {

// A parameter goes into the layout when every use of it can read it. One that somebody writes in
// place (the attribute `writable`) stays as it is: packing at every step would cost more than it
// brings.
bool reads_rows16(const ir::Operation& operation, std::size_t operand) {
  if (operation.is("gather") || operation.is("adapted_row_norms") || operation.is("weight_codes")) {
    return operand == 0;
  }
  if (operation.is("matmul_group")) return operand >= 1;
  if (operation.is("matmul_gated")) return operand == 1 || operand == 2;
  if (operation.is("matmul_scaled") || operation.is("matmul_scaled_back")) return operand == 1;
  if (operation.is("matmul_scaled_outer")) return operand == 2;
  if (operation.is("matmul_back") || operation.is("output_loss")) return operand == 1;
  return (operation.is("matmul") || operation.is("matmul_add")) && operand == 1;
}

Result<ir::Graph> run(const ir::Graph& graph) {
  std::vector<bool> fits(graph.values.size(), false);
  for (const ir::Operation& operation : graph.operations) {
    if (operation.is("parameter") && graph.type(operation.results[0]).shape.size() == 2 &&
        !operation.attributes.flag("writable")) {
      fits[static_cast<std::size_t>(operation.results[0])] = true;
    }
  }
  for (const ir::Operation& operation : graph.operations) {
    for (std::size_t i = 0; i < operation.operands.size(); ++i) {
      if (!reads_rows16(operation, i))
        fits[static_cast<std::size_t>(operation.operands[i])] = false;
    }
  }
  for (const ir::ValueId id : graph.outputs) fits[static_cast<std::size_t>(id)] = false;
  ir::Rewriter rewriter(graph, ops::find_op);
  for (const ir::Operation& operation : graph.operations) {
    if (operation.is("parameter") && fits[static_cast<std::size_t>(operation.results[0])]) {
      ir::Type type = graph.type(operation.results[0]);
      type.layout = ir::Layout::kRows16;
      rewriter.replace(operation.results[0],
                       rewriter.emit_source(operation.op, type, operation.attributes));
    } else {
      rewriter.copy(operation);
    }
  }
  return rewriter.finish();
}

}  // namespace

const Pass& layout_pass() {
  static const Pass kPass{"layout", "interleaves 16 rows of every weight matrix",
                          PassKind::kRewrite, 0, run};
  return kPass;
}

}  // namespace hone::passes

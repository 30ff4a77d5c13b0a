// Integer arithmetic: activations go into block-quantized matmuls as int8 codes.
// SPDX-License-Identifier: Apache-2.0
#include <vector>

#include "ops/registry.h"
#include "passes/pass.h"

namespace hone::passes {
namespace {

bool takes_int8(const ir::Graph& graph, const ir::Operation& operation) {
  return (operation.is("matmul") || operation.is("matmul_scaled") || operation.is("output_loss")) &&
         operation.attributes.find("rounding") == nullptr &&
         is_block_quantized(graph.type(operation.operands[1]).dtype) &&
         graph.type(operation.operands[0]).layout == ir::Layout::kRowMajor;
}

// Error of one product: each activation is off by at most half a code, 1/254 of the largest of its
// block of 32 (the same rounding as llama.cpp's Q8 activations).
Result<ir::Graph> run(const ir::Graph& graph) {
  std::vector<bool> coded(graph.values.size(), false);
  for (const ir::Operation& operation : graph.operations) {
    if (takes_int8(graph, operation)) coded[static_cast<std::size_t>(operation.operands[0])] = true;
  }
  ir::Rewriter rewriter(graph, ops::find_op);
  for (const ir::Operation& operation : graph.operations) {
    // Sums of columns are those of the codes where there are codes: a pooled adapter then computes
    // with the numbers that its weight's minima are multiplied with once it is merged.
    const bool pools =
        operation.is("pool_columns") && coded[static_cast<std::size_t>(operation.operands[0])];
    if (!pools && !takes_int8(graph, operation)) {
      rewriter.copy(operation);
      continue;
    }
    const auto codes = rewriter.emit("quantize", {rewriter.map(operation.operands[0])});
    if (codes.empty()) continue;
    std::vector<ir::ValueId> operands = rewriter.map(operation.operands);
    operands[0] = codes[0];
    const auto made = rewriter.emit(operation.op->name, operands, operation.attributes);
    for (std::size_t i = 0; i < made.size(); ++i) rewriter.replace(operation.results[i], made[i]);
  }
  return rewriter.finish();
}

}  // namespace

const Pass& integer_pass() {
  static const Pass kPass{
      "integer", "quantizes activations to int8 before matmuls with block-quantized weights",
      PassKind::kTransform, 0, run};
  return kPass;
}

}  // namespace hone::passes

// Rows of a table by index: token embeddings, positions, and the rows whose logits are wanted.
// SPDX-License-Identifier: Apache-2.0
#include "ops/registry.h"
#include "ops/support.h"

namespace hone::ops {
namespace {

TypesResult infer(Types operands, const Attributes&) {
  if (operands.size() != 2 || !is_weight(operands[0]) || !is_indices(operands[1])) {
    return ir::type_error("gather", "a table (V, C) and i32 indices (N)", operands);
  }
  return std::vector<Type>{tensor_type({operands[1].shape[0], operands[0].columns()})};
}

void evaluate(const Evaluation& evaluation) {
  const Tensor& table = *evaluation.operands[0];
  const auto columns = static_cast<std::size_t>(table.type.columns());
  std::size_t at = 0;
  for (const double index : evaluation.operands[1]->data) {
    const std::size_t start = static_cast<std::size_t>(index) * columns;
    for (std::size_t i = 0; i < columns; ++i) {
      evaluation.results[0].data[at++] = table.data[start + i];
    }
  }
}

Cost cost(Types, Types results, const Attributes&) { return {0, 2 * total_bytes(results)}; }

std::vector<Example> examples() {
  return {{{{tensor_type({9, 64})}, {tensor_type({4}, DType::kI32), Fill::kIndex, 9}}, {}, 0}};
}

Gradients gradient(const Differentiation& at) {
  if (at.wanted[0] == 0) return {ir::kNoGradient, ir::kNoGradient};
  return {emit_one(at, "scatter_rows", {at.gradients[0], at.operands[1]},
                   {{"rows", at.types[0].rows()}}),
          ir::kNoGradient};
}

Tangents tangent(const Linearization& at) { return linear_tangent(at, "gather"); }

}  // namespace

const OpDescriptor& gather_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "gather";
    op.summary = "(V, C), (N) i32 -> (N, C): row indices[n] of the table";
    op.infer = infer;
    op.evaluate = evaluate;
    op.cost = cost;
    op.examples = examples;
    op.gradient = gradient;
    op.tangent = tangent;
    op.row_wise = true;
    return op;
  }();
  return kOp;
}

}  // namespace hone::ops

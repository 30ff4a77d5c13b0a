// Element-wise sum; the second operand may be one row that all rows share (a bias).
// SPDX-License-Identifier: Apache-2.0
#include "ops/registry.h"
#include "ops/support.h"

namespace hone::ops {
namespace {

TypesResult infer(Types operands, const Attributes&) {
  const bool fits =
      operands.size() == 2 && is_dense(operands[0]) && is_dense(operands[1]) &&
      (operands[0] == operands[1] || operands[1].shape == Shape{operands[0].columns()});
  if (!fits) return ir::type_error("add", "(N, C) and (N, C) or (C), f32", operands);
  return std::vector<Type>{operands[0]};
}

void evaluate(const Evaluation& evaluation) {
  const std::vector<double>& a = evaluation.operands[0]->data;
  const std::vector<double>& b = evaluation.operands[1]->data;
  for (std::size_t i = 0; i < a.size(); ++i) {
    evaluation.results[0].data[i] = a[i] + b[i % b.size()];
  }
}

Cost cost(Types operands, Types results, const Attributes&) {
  return elementwise_cost(operands, results, 1);
}

std::vector<Example> examples() {
  return {{{{tensor_type({3, 67})}, {tensor_type({3, 67})}}, {}, 4},
          {{{tensor_type({5, 64})}, {tensor_type({64})}}, {}, 4}};
}

Gradients gradient(const Differentiation& at) {
  const bool shared = at.types[0] != at.types[1];
  const std::int32_t dy = at.gradients[0];
  return {at.wanted[0] != 0 ? dy : ir::kNoGradient, at.wanted[1] == 0 ? ir::kNoGradient
                                                    : shared ? emit_one(at, "column_sum", {dy})
                                                             : dy};
}

Tangents tangent(const Linearization& at) {
  const bool shared = at.types[0] != at.types[1];
  const std::int32_t first =
      shared && at.tangents[0] == ir::kNoTangent
          ? emit_one(at, "scale", {at.operands[0]}, {{"factor", 0.0}})  // of every row
          : at.tangents[0];
  return {add_tangents(at, first, at.tangents[1])};
}

}  // namespace

const OpDescriptor& add_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "add";
    op.summary = "(N, C), (N, C) or (C) -> (N, C): element-wise sum";
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

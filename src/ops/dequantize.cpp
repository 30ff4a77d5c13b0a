// int8 rows back to f32: what a gradient needs of the rows that a product has seen.
// SPDX-License-Identifier: Apache-2.0
#include "ops/registry.h"
#include "ops/support.h"

namespace hone::ops {
namespace {

TypesResult infer(Types operands, const Attributes&) {
  if (operands.size() != 1 || operands[0].layout != Layout::kInt8Rows) {
    return ir::type_error("dequantize", "(N, C) int8 rows", operands);
  }
  return std::vector<Type>{tensor_type(operands[0].shape)};
}

void evaluate(const Evaluation& evaluation) {
  evaluation.results[0].data = evaluation.operands[0]->data;
}

Cost cost(Types operands, Types results, const Attributes&) {
  return elementwise_cost(operands, results, 1);
}

// Its operand comes from `quantize` alone: tests/tune compiles it between the two.
std::vector<Example> examples() { return {}; }

}  // namespace

const OpDescriptor& dequantize_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "dequantize";
    op.summary = "(N, C) int8 rows -> (N, C) f32: scale times code";
    op.infer = infer;
    op.evaluate = evaluate;
    op.cost = cost;
    op.examples = examples;
    op.row_wise = true;
    return op;
  }();
  return kOp;
}

}  // namespace hone::ops

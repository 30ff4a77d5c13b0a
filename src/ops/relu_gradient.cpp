// Gradient of relu: dy where x is above 0.
// SPDX-License-Identifier: Apache-2.0
#include "ops/registry.h"
#include "ops/support.h"

namespace hone::ops {
namespace {

TypesResult infer(Types operands, const Attributes&) {
  return same_type("relu_gradient", operands, 2);
}

void evaluate(const Evaluation& evaluation) {
  map_pairs(evaluation, [](double x, double dy) { return x > 0 ? dy : 0.0; });
}

Cost cost(Types operands, Types results, const Attributes&) {
  return elementwise_cost(operands, results, 1);
}

std::vector<Example> examples() {
  return {{{{tensor_type({3, 67})}, {tensor_type({3, 67})}}, {}, 0}};
}

}  // namespace

const OpDescriptor& relu_gradient_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "relu_gradient";
    op.summary = "(N, C), (N, C) -> (N, C): dy where x is above 0, else 0";
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

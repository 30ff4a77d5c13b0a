// Gradient of silu: dx = dy (s + x s (1 - s)) with s = sigmoid(x).
// SPDX-License-Identifier: Apache-2.0
#include "ops/registry.h"
#include "ops/support.h"

namespace hone::ops {
namespace {

TypesResult infer(Types operands, const Attributes&) {
  return same_type("silu_gradient", operands, 2);
}

void evaluate(const Evaluation& evaluation) {
  map_pairs(evaluation, [](double x, double dy) { return dy * silu_derivative(x); });
}

Cost cost(Types operands, Types results, const Attributes&) {
  return elementwise_cost(operands, results, 10);
}

std::vector<Example> examples() {
  return {{{{tensor_type({3, 67})}, {tensor_type({3, 67})}}, {}, 64}};
}

}  // namespace

const OpDescriptor& silu_gradient_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "silu_gradient";
    op.summary = "(N, C), (N, C) -> (N, C): gradient of silu at x, times dy";
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

// Gradient of soft capping, from its result: d(cap tanh(x / cap))/dx = 1 - (y / cap)^2.
// SPDX-License-Identifier: Apache-2.0
#include "ops/registry.h"
#include "ops/support.h"

namespace hone::ops {
namespace {

TypesResult infer(Types operands, const Attributes& attributes) {
  if (attributes.number("cap") <= 0) {
    return ir::type_error("tanh_cap_gradient", "a positive `cap`", operands);
  }
  return same_type("tanh_cap_gradient", operands, 2);
}

void evaluate(const Evaluation& evaluation) {
  const double cap = evaluation.attributes.number("cap");
  map_pairs(evaluation, [cap](double y, double dy) { return dy * (1 - (y / cap) * (y / cap)); });
}

Cost cost(Types operands, Types results, const Attributes&) {
  return elementwise_cost(operands, results, 4);
}

std::vector<Example> examples() {
  return {{{{tensor_type({3, 67})}, {tensor_type({3, 67})}}, {{"cap", 1.5}}, 8}};
}

}  // namespace

const OpDescriptor& tanh_cap_gradient_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "tanh_cap_gradient";
    op.summary = "(N, C), (N, C) -> (N, C): gradient of tanh_cap whose result is y, times dy";
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

// max(x, 0), element by element (Nair & Hinton 2010).
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "ops/registry.h"
#include "ops/support.h"

namespace hone::ops {
namespace {

TypesResult infer(Types operands, const Attributes&) { return same_type("relu", operands, 1); }

void evaluate(const Evaluation& evaluation) {
  map_elements(evaluation, [](double x) { return std::max(x, 0.0); });
}

Cost cost(Types operands, Types results, const Attributes&) {
  return elementwise_cost(operands, results, 1);
}

// Values of both signs, none so near to 0 that a finite difference crosses the kink.
std::vector<Example> examples() {
  ExampleOperand operand{tensor_type({3, 67})};
  for (int i = 0; i < 201; ++i) operand.values.push_back(0.0625 * (i * 83 % 201) - 6.28125);
  return {{{operand}, {}, 1}};
}

Gradients gradient(const Differentiation& at) {
  return {emit_one(at, "relu_gradient", {at.operands[0], at.gradients[0]})};
}

Tangents tangent(const Linearization& at) {
  return {emit_one(at, "relu_gradient", {at.operands[0], at.tangents[0]})};
}

}  // namespace

const OpDescriptor& relu_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "relu";
    op.summary = "(N, C) -> (N, C): max(x, 0)";
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

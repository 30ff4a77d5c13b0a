// GELU in its tanh form.
// SPDX-License-Identifier: Apache-2.0
#include "ops/registry.h"
#include "ops/support.h"

namespace hone::ops {
namespace {

TypesResult infer(Types operands, const Attributes&) { return same_type("gelu", operands, 1); }

void evaluate(const Evaluation& evaluation) { map_elements(evaluation, gelu_tanh); }

Cost cost(Types operands, Types results, const Attributes&) {
  return elementwise_cost(operands, results, 12);
}

std::vector<Example> examples() { return {{{{tensor_type({3, 67})}}, {}, 64}}; }

Gradients gradient(const Differentiation& at) {
  return {emit_one(at, "gelu_gradient", {at.operands[0], at.gradients[0]})};
}

Tangents tangent(const Linearization& at) {
  return {emit_one(at, "gelu_gradient", {at.operands[0], at.tangents[0]})};
}

}  // namespace

const OpDescriptor& gelu_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "gelu";
    op.summary = "(N, C) -> (N, C): gELU in its tanh form";
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

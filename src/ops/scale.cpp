// Multiplication by a constant.
// SPDX-License-Identifier: Apache-2.0
#include "ops/registry.h"
#include "ops/support.h"

namespace hone::ops {
namespace {

TypesResult infer(Types operands, const Attributes&) { return same_type("scale", operands, 1); }

void evaluate(const Evaluation& evaluation) {
  const double factor = evaluation.attributes.number("factor", 1);
  map_elements(evaluation, [factor](double x) { return x * factor; });
}

Cost cost(Types operands, Types results, const Attributes&) {
  return elementwise_cost(operands, results, 1);
}

std::vector<Example> examples() { return {{{{tensor_type({3, 67})}}, {{"factor", 25.25}}, 4}}; }

Gradients gradient(const Differentiation& at) {
  return {emit_one(at, "scale", {at.gradients[0]}, at.attributes)};
}

Tangents tangent(const Linearization& at) { return linear_tangent(at, "scale"); }

}  // namespace

const OpDescriptor& scale_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "scale";
    op.summary = "(N, C) -> (N, C): x * factor";
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

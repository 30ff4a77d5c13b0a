// Soft capping: cap * tanh(x / cap) (Gemma 2, arXiv 2408.00118, section 2).
// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "ops/registry.h"
#include "ops/support.h"

namespace hone::ops {
namespace {

TypesResult infer(Types operands, const Attributes& attributes) {
  if (attributes.number("cap") <= 0)
    return ir::type_error("tanh_cap", "a positive `cap`", operands);
  return same_type("tanh_cap", operands, 1);
}

void evaluate(const Evaluation& evaluation) {
  const double cap = evaluation.attributes.number("cap");
  map_elements(evaluation, [cap](double x) { return cap * std::tanh(x / cap); });
}

Cost cost(Types operands, Types results, const Attributes&) {
  return elementwise_cost(operands, results, 10);
}

std::vector<Example> examples() { return {{{{tensor_type({3, 67})}}, {{"cap", 1.5}}, 64}}; }

Gradients gradient(const Differentiation& at) {
  return {emit_one(at, "tanh_cap_gradient", {at.results[0], at.gradients[0]}, at.attributes)};
}

Tangents tangent(const Linearization& at) {
  return {emit_one(at, "tanh_cap_gradient", {at.results[0], at.tangents[0]}, at.attributes)};
}

}  // namespace

const OpDescriptor& tanh_cap_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "tanh_cap";
    op.summary = "(N, C) -> (N, C): cap * tanh(x / cap)";
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

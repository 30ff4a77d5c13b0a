// Changes a trained parameter in place by its gradient, with the update rule that training chose.
// SPDX-License-Identifier: Apache-2.0
#include "ops/registry.h"
#include "ops/support.h"

namespace hone::ops {
namespace {

// operands: the parameter, row-major f32, and its gradient. No result: the effect is on the
// parameter's own memory, so everything that reads it must stand before.
TypesResult infer(Types operands, const Attributes&) {
  const bool fits = operands.size() == 2 && is_dense(operands[0]) && operands[0] == operands[1];
  if (!fits) return ir::type_error("update", "a parameter and a gradient of its shape", operands);
  return std::vector<Type>{};
}

void evaluate(const Evaluation&) {}

Cost cost(Types operands, Types, const Attributes&) {
  return {10.0 * static_cast<double>(operands[0].elements()), 2 * total_bytes(operands)};
}

// Has no result to compare; tests of tuning run it.
std::vector<Example> examples() { return {}; }

}  // namespace

const OpDescriptor& update_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "update";
    op.summary = "(…), (…) -> (): the parameter `name` steps against its gradient, in place";
    op.infer = infer;
    op.evaluate = evaluate;
    op.cost = cost;
    op.examples = examples;
    op.effect = true;
    return op;
  }();
  return kOp;
}

}  // namespace hone::ops

// The same elements in the same order under another shape.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "ops/registry.h"
#include "ops/support.h"

namespace hone::ops {
namespace {

TypesResult infer(Types operands, const Attributes& attributes) {
  const auto shape = attributes.integers("shape");
  if (operands.size() == 1 && is_dense(operands[0])) {
    Type type = tensor_type(Shape(shape.begin(), shape.end()));
    const bool positive = std::ranges::all_of(shape, [](std::int64_t n) { return n > 0; });
    if (positive && type.elements() == operands[0].elements()) return std::vector<Type>{type};
  }
  return ir::type_error("reshape", "an f32 tensor and a `shape` of as many elements", operands);
}

void evaluate(const Evaluation& evaluation) {
  evaluation.results[0].data = evaluation.operands[0]->data;
}

Cost cost(Types, Types, const Attributes&) { return {}; }

std::vector<Example> examples() {
  return {{{{tensor_type({6, 32})}}, {{"shape", ir::Integers{12, 16}}}, 0}};
}

Gradients gradient(const Differentiation& at) {
  return {emit_one(at, "reshape", {at.gradients[0]}, {{"shape", at.types[0].shape}})};
}

Tangents tangent(const Linearization& at) { return linear_tangent(at, "reshape"); }

}  // namespace

const OpDescriptor& reshape_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "reshape";
    op.summary = "any -> any: the same elements under the attribute `shape`; moves nothing";
    op.infer = infer;
    op.evaluate = evaluate;
    op.cost = cost;
    op.examples = examples;
    op.gradient = gradient;
    op.tangent = tangent;
    op.alias = true;
    return op;
  }();
  return kOp;
}

}  // namespace hone::ops

// A small dense tensor whose values stand in the graph.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "ops/registry.h"
#include "ops/support.h"

namespace hone::ops {
namespace {

TypesResult infer(Types operands, const Attributes& attributes) {
  const auto shape = attributes.integers("shape");
  const Type type = tensor_type(Shape(shape.begin(), shape.end()));
  const bool fits =
      operands.empty() && !type.shape.empty() &&
      std::ranges::all_of(shape, [](std::int64_t n) { return n > 0; }) &&
      type.elements() == static_cast<std::int64_t>(attributes.numbers("values").size());
  if (!fits) return ir::type_error("constant", "a `shape` and as many `values`", operands);
  return std::vector<Type>{type};
}

void evaluate(const Evaluation& evaluation) {
  const auto values = evaluation.attributes.numbers("values");
  evaluation.results[0].data.assign(values.begin(), values.end());
}

Cost cost(Types, Types results, const Attributes&) { return {0, total_bytes(results)}; }

std::vector<Example> examples() {
  return {{{}, {{"shape", ir::Integers{2, 2}}, {"values", ir::Numbers{1.0, -0.5, 0.25, 3.0}}}, 0}};
}

}  // namespace

const OpDescriptor& constant_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "constant";
    op.summary = "() -> (…): the attribute `values` in the attribute `shape`";
    op.infer = infer;
    op.evaluate = evaluate;
    op.cost = cost;
    op.examples = examples;
    return op;
  }();
  return kOp;
}

}  // namespace hone::ops

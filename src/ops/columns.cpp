// A range of columns of every row.
// SPDX-License-Identifier: Apache-2.0
#include "ops/registry.h"
#include "ops/support.h"

namespace hone::ops {
namespace {

TypesResult infer(Types operands, const Attributes& attributes) {
  const std::int64_t start = attributes.integer("start");
  const std::int64_t count = attributes.integer("count");
  const bool fits = operands.size() == 1 && is_dense(operands[0]) &&
                    operands[0].shape.size() == 2 && start >= 0 && count > 0 &&
                    start < operands[0].columns() && count <= operands[0].columns() - start;
  if (!fits) return ir::type_error("columns", "(N, C) with start + count <= C", operands);
  return std::vector<Type>{tensor_type({operands[0].rows(), count})};
}

void evaluate(const Evaluation& evaluation) {
  const Tensor& x = *evaluation.operands[0];
  const auto columns = static_cast<std::size_t>(x.type.columns());
  const auto start = static_cast<std::size_t>(evaluation.attributes.integer("start"));
  const auto count = static_cast<std::size_t>(evaluation.attributes.integer("count"));
  for (std::size_t row = 0; row < static_cast<std::size_t>(x.type.rows()); ++row) {
    for (std::size_t i = 0; i < count; ++i) {
      evaluation.results[0].data[row * count + i] = x.data[row * columns + start + i];
    }
  }
}

Cost cost(Types, Types results, const Attributes&) { return {0, 2 * total_bytes(results)}; }

std::vector<Example> examples() {
  return {{{{tensor_type({3, 67})}}, {{"start", std::int64_t{5}}, {"count", std::int64_t{33}}}, 0}};
}

Gradients gradient(const Differentiation& at) {
  return {
      emit_one(at, "place_columns", {at.gradients[0]},
               {{"start", at.attributes.integer("start")}, {"columns", at.types[0].columns()}})};
}

Tangents tangent(const Linearization& at) { return linear_tangent(at, "columns"); }

}  // namespace

const OpDescriptor& columns_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "columns";
    op.summary = "(N, C) -> (N, count): columns start .. start + count of every row";
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

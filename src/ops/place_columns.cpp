// Columns put into wider rows that are zero elsewhere: the inverse of `columns`, and its gradient.
// SPDX-License-Identifier: Apache-2.0
#include "ops/registry.h"
#include "ops/support.h"

namespace hone::ops {
namespace {

TypesResult infer(Types operands, const Attributes& attributes) {
  const std::int64_t start = attributes.integer("start");
  const std::int64_t columns = attributes.integer("columns");
  const bool fits = operands.size() == 1 && is_dense(operands[0]) &&
                    operands[0].shape.size() == 2 && start >= 0 && start < columns &&
                    operands[0].columns() <= columns - start;
  if (!fits) {
    return ir::type_error("place_columns", "(N, count) with start + count <= columns", operands);
  }
  return std::vector<Type>{tensor_type({operands[0].rows(), columns})};
}

void evaluate(const Evaluation& evaluation) {
  const std::vector<double>& x = evaluation.operands[0]->data;
  const auto count = static_cast<std::size_t>(evaluation.operands[0]->type.columns());
  const auto start = static_cast<std::size_t>(evaluation.attributes.integer("start"));
  const auto columns = static_cast<std::size_t>(evaluation.attributes.integer("columns"));
  for (std::size_t i = 0; i < x.size(); ++i) {
    evaluation.results[0].data[i / count * columns + start + i % count] = x[i];
  }
}

Cost cost(Types operands, Types results, const Attributes&) {
  return {0, total_bytes(operands) + total_bytes(results)};
}

std::vector<Example> examples() {
  return {
      {{{tensor_type({3, 33})}}, {{"start", std::int64_t{5}}, {"columns", std::int64_t{67}}}, 0}};
}

Gradients gradient(const Differentiation& at) {
  return {emit_one(at, "columns", {at.gradients[0]},
                   {{"start", at.attributes.integer("start")}, {"count", at.types[0].columns()}})};
}

}  // namespace

const OpDescriptor& place_columns_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "place_columns";
    op.summary =
        "(N, count) -> (N, columns): columns start .. start + count of every row, zeros elsewhere";
    op.infer = infer;
    op.evaluate = evaluate;
    op.cost = cost;
    op.examples = examples;
    op.gradient = gradient;
    op.row_wise = true;
    return op;
  }();
  return kOp;
}

}  // namespace hone::ops

// Rows added into a table of zeros by index: the gradient of `gather`.
// SPDX-License-Identifier: Apache-2.0
#include "ops/registry.h"
#include "ops/support.h"

namespace hone::ops {
namespace {

TypesResult infer(Types operands, const Attributes& attributes) {
  const std::int64_t rows = attributes.integer("rows");
  const bool fits = operands.size() == 2 && is_dense(operands[0]) &&
                    operands[0].shape.size() == 2 && is_indices(operands[1]) &&
                    operands[1].shape[0] == operands[0].rows() && rows > 0;
  if (!fits) {
    return ir::type_error("scatter_rows", "(N, C), i32 indices (N) and positive `rows`", operands);
  }
  return std::vector<Type>{tensor_type({rows, operands[0].columns()})};
}

// Rows of one index add up in the order in which they stand; an index that is not below `rows` adds
// nowhere.
void evaluate(const Evaluation& evaluation) {
  const std::vector<double>& x = evaluation.operands[0]->data;
  const std::vector<double>& indices = evaluation.operands[1]->data;
  const auto columns = static_cast<std::size_t>(evaluation.operands[0]->type.columns());
  for (std::size_t i = 0; i < x.size(); ++i) {
    const auto row = static_cast<std::size_t>(indices[i / columns]);
    if (row >= static_cast<std::size_t>(evaluation.results[0].type.rows())) continue;
    evaluation.results[0].data[row * columns + i % columns] += x[i];
  }
}

Cost cost(Types operands, Types results, const Attributes&) {
  return {static_cast<double>(operands[0].elements()),
          total_bytes(operands) + total_bytes(results)};
}

std::vector<Example> examples() {
  return {{{{tensor_type({13, 67})}, {tensor_type({13}, DType::kI32), Fill::kIndex, 9}},
           {{"rows", std::int64_t{9}}},
           16}};
}

Gradients gradient(const Differentiation& at) {
  if (at.wanted[0] == 0) return {ir::kNoGradient, ir::kNoGradient};
  return {emit_one(at, "gather", {at.gradients[0], at.operands[1]}), ir::kNoGradient};
}

}  // namespace

const OpDescriptor& scatter_rows_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "scatter_rows";
    op.summary = "(N, C), (N) i32 -> (rows, C): row n added to row indices[n], zeros elsewhere";
    op.infer = infer;
    op.evaluate = evaluate;
    op.cost = cost;
    op.examples = examples;
    op.gradient = gradient;
    return op;
  }();
  return kOp;
}

}  // namespace hone::ops

// Each row times a factor of its own.
// SPDX-License-Identifier: Apache-2.0
#include "ops/registry.h"
#include "ops/support.h"

namespace hone::ops {
namespace {

TypesResult infer(Types operands, const Attributes&) {
  const bool fits = operands.size() == 2 && is_dense(operands[0]) && is_dense(operands[1]) &&
                    operands[0].shape.size() == 2 && operands[1].shape == Shape{operands[0].rows()};
  if (!fits) return ir::type_error("scale_rows", "(N, C) and (N), f32", operands);
  return std::vector<Type>{operands[0]};
}

void evaluate(const Evaluation& evaluation) {
  const std::vector<double>& x = evaluation.operands[0]->data;
  const std::vector<double>& factors = evaluation.operands[1]->data;
  const std::size_t columns = x.size() / factors.size();
  for (std::size_t i = 0; i < x.size(); ++i) {
    evaluation.results[0].data[i] = x[i] * factors[i / columns];
  }
}

Cost cost(Types operands, Types results, const Attributes&) {
  return elementwise_cost(operands, results, 1);
}

std::vector<Example> examples() {
  return {{{{tensor_type({3, 67})}, {tensor_type({3})}}, {}, 4},
          {{{tensor_type({5, 64})}, {tensor_type({5})}}, {}, 4}};
}

}  // namespace

const OpDescriptor& scale_rows_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "scale_rows";
    op.summary = "(N, C), (N) -> (N, C): row n times factor n";
    op.infer = infer;
    op.evaluate = evaluate;
    op.cost = cost;
    op.examples = examples;
    op.row_wise = true;
    return op;
  }();
  return kOp;
}

}  // namespace hone::ops

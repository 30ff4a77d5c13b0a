// Gradient of softmax, from its result: dx = y (dy - sum(y dy)), row by row.
// SPDX-License-Identifier: Apache-2.0
#include "ops/registry.h"
#include "ops/support.h"

namespace hone::ops {
namespace {

TypesResult infer(Types operands, const Attributes&) {
  return same_type("softmax_gradient", operands, 2);
}

void evaluate(const Evaluation& evaluation) {
  const std::vector<double>& y = evaluation.operands[0]->data;
  const std::vector<double>& dy = evaluation.operands[1]->data;
  const auto columns = static_cast<std::size_t>(evaluation.operands[0]->type.columns());
  for (std::size_t start = 0; start < y.size(); start += columns) {
    double dot = 0;
    for (std::size_t i = start; i < start + columns; ++i) dot += y[i] * dy[i];
    for (std::size_t i = start; i < start + columns; ++i) {
      evaluation.results[0].data[i] = y[i] * (dy[i] - dot);
    }
  }
}

Cost cost(Types operands, Types results, const Attributes&) {
  return elementwise_cost(operands, results, 4);
}

std::vector<Example> examples() {
  return {{{{tensor_type({3, 67})}, {tensor_type({3, 67})}}, {}, 128},
          {{{tensor_type({2, 4099})}, {tensor_type({2, 4099})}}, {}, 512}};
}

}  // namespace

const OpDescriptor& softmax_gradient_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "softmax_gradient";
    op.summary = "(N, C), (N, C) -> (N, C): gradient of softmax whose result is y, times dy";
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

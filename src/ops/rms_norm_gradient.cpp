// Gradient of RMS norm with respect to its rows. With r = 1 / sqrt(mean(x^2) + epsilon) and
// g = dy weight: dx = r g - x r^3 mean(g x).
// SPDX-License-Identifier: Apache-2.0
#include "ops/registry.h"
#include "ops/support.h"

namespace hone::ops {
namespace {

TypesResult infer(Types operands, const Attributes&) {
  const bool fits = operands.size() == 3 && is_dense(operands[0]) && is_dense(operands[1]) &&
                    operands[1].shape == Shape{operands[0].columns()} && operands[2] == operands[0];
  if (!fits) return ir::type_error("rms_norm_gradient", "(N, C), (C), (N, C), f32", operands);
  return std::vector<Type>{operands[0]};
}

void evaluate(const Evaluation& evaluation) {
  const std::vector<double>& x = evaluation.operands[0]->data;
  const std::vector<double>& weight = evaluation.operands[1]->data;
  const std::vector<double>& dy = evaluation.operands[2]->data;
  const std::size_t columns = weight.size();
  const auto count = static_cast<double>(columns);
  for (std::size_t start = 0; start < x.size(); start += columns) {
    const double r = row_moments(std::span(x).subspan(start, columns), false,
                                 evaluation.attributes.number("epsilon"))
                         .inverse;
    double dot = 0;
    for (std::size_t i = 0; i < columns; ++i) dot += dy[start + i] * weight[i] * x[start + i];
    for (std::size_t i = 0; i < columns; ++i) {
      evaluation.results[0].data[start + i] =
          r * dy[start + i] * weight[i] - x[start + i] * r * r * r * dot / count;
    }
  }
}

Cost cost(Types operands, Types results, const Attributes&) {
  return elementwise_cost(operands, results, 9);
}

std::vector<Example> examples() {
  return {{{{tensor_type({3, 67})}, {tensor_type({67})}, {tensor_type({3, 67})}},
           {{"epsilon", 1e-5}},
           128},
          {{{tensor_type({2, 576})}, {tensor_type({576})}, {tensor_type({2, 576})}},
           {{"epsilon", 1e-6}},
           256}};
}

}  // namespace

const OpDescriptor& rms_norm_gradient_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "rms_norm_gradient";
    op.summary = "(N, C), (C), (N, C) -> (N, C): gradient of rms_norm with respect to x";
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

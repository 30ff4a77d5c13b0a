// Gradient of layer norm with respect to its rows. With the row's normalized form h and its factor
// r = 1 / sqrt(variance + epsilon), g = dy weight: dx = r (g - mean(g) - h mean(g h)).
// SPDX-License-Identifier: Apache-2.0
#include "ops/registry.h"
#include "ops/support.h"

namespace hone::ops {
namespace {

TypesResult infer(Types operands, const Attributes&) {
  const bool fits = operands.size() == 3 && is_dense(operands[0]) && is_dense(operands[1]) &&
                    operands[1].shape == Shape{operands[0].columns()} && operands[2] == operands[0];
  if (!fits) return ir::type_error("layer_norm_gradient", "(N, C), (C), (N, C), f32", operands);
  return std::vector<Type>{operands[0]};
}

void evaluate(const Evaluation& evaluation) {
  const std::vector<double>& x = evaluation.operands[0]->data;
  const std::vector<double>& weight = evaluation.operands[1]->data;
  const std::vector<double>& dy = evaluation.operands[2]->data;
  const std::size_t columns = weight.size();
  const auto count = static_cast<double>(columns);
  for (std::size_t start = 0; start < x.size(); start += columns) {
    const RowMoments row = row_moments(std::span(x).subspan(start, columns), true,
                                       evaluation.attributes.number("epsilon"));
    const auto normalized = [&](std::size_t i) { return (x[start + i] - row.mean) * row.inverse; };
    double sum = 0;
    double dot = 0;
    for (std::size_t i = 0; i < columns; ++i) {
      sum += dy[start + i] * weight[i];
      dot += dy[start + i] * weight[i] * normalized(i);
    }
    for (std::size_t i = 0; i < columns; ++i) {
      evaluation.results[0].data[start + i] =
          row.inverse * (dy[start + i] * weight[i] - sum / count - normalized(i) * dot / count);
    }
  }
}

Cost cost(Types operands, Types results, const Attributes&) {
  return elementwise_cost(operands, results, 14);
}

std::vector<Example> examples() {
  return {{{{tensor_type({3, 67})}, {tensor_type({67})}, {tensor_type({3, 67})}},
           {{"epsilon", 1e-5}},
           256}};
}

}  // namespace

const OpDescriptor& layer_norm_gradient_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "layer_norm_gradient";
    op.summary = "(N, C), (C), (N, C) -> (N, C): gradient of layer_norm with respect to x";
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

// Gradient of layer_norm with respect to its weight: the sum over rows of dy times the normalized
// row.
// SPDX-License-Identifier: Apache-2.0
#include "ops/registry.h"
#include "ops/support.h"

namespace hone::ops {
namespace {

TypesResult infer(Types operands, const Attributes&) {
  const bool fits = operands.size() == 2 && is_dense(operands[0]) && operands[1] == operands[0];
  if (!fits) return ir::type_error("layer_norm_weight_gradient", "(N, C), (N, C), f32", operands);
  return std::vector<Type>{tensor_type({operands[0].columns()})};
}

void evaluate(const Evaluation& evaluation) {
  const std::vector<double>& x = evaluation.operands[0]->data;
  const std::vector<double>& dy = evaluation.operands[1]->data;
  const auto columns = static_cast<std::size_t>(evaluation.operands[0]->type.columns());
  for (std::size_t start = 0; start < x.size(); start += columns) {
    const RowMoments row = row_moments(std::span(x).subspan(start, columns), true,
                                       evaluation.attributes.number("epsilon"));
    for (std::size_t i = 0; i < columns; ++i) {
      evaluation.results[0].data[i] += dy[start + i] * (x[start + i] - row.mean) * row.inverse;
    }
  }
}

Cost cost(Types operands, Types results, const Attributes&) {
  return {7 * static_cast<double>(operands[0].elements()),
          total_bytes(operands) + total_bytes(results)};
}

std::vector<Example> examples() {
  return {{{{tensor_type({3, 67})}, {tensor_type({3, 67})}}, {{"epsilon", 1e-5}}, 256},
          {{{tensor_type({131, 48})}, {tensor_type({131, 48})}}, {{"epsilon", 1e-6}}, 512}};
}

}  // namespace

const OpDescriptor& layer_norm_weight_gradient_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "layer_norm_weight_gradient";
    op.summary = "(N, C), (N, C) -> (C): gradient of layer_norm with respect to its weight";
    op.infer = infer;
    op.evaluate = evaluate;
    op.cost = cost;
    op.examples = examples;
    return op;
  }();
  return kOp;
}

}  // namespace hone::ops

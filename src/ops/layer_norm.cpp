// Layer norm over the last dimension (Ba et al. 2016).
// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "ops/registry.h"
#include "ops/support.h"

namespace hone::ops {
namespace {

TypesResult infer(Types operands, const Attributes&) {
  bool fits = operands.size() == 3;
  for (const Type& type : operands) fits = fits && is_dense(type);
  fits = fits && operands[1].shape == Shape{operands[0].columns()} && operands[2] == operands[1];
  if (!fits) return ir::type_error("layer_norm", "(N, C), (C), (C), f32", operands);
  return std::vector<Type>{operands[0]};
}

void evaluate(const Evaluation& evaluation) {
  const Tensor& x = *evaluation.operands[0];
  const std::vector<double>& weight = evaluation.operands[1]->data;
  const std::vector<double>& bias = evaluation.operands[2]->data;
  const auto columns = static_cast<std::size_t>(x.type.columns());
  for (std::size_t start = 0; start < x.data.size(); start += columns) {
    double mean = 0;
    for (std::size_t i = 0; i < columns; ++i) mean += x.data[start + i];
    mean /= static_cast<double>(columns);
    double variance = 0;
    for (std::size_t i = 0; i < columns; ++i) {
      variance += (x.data[start + i] - mean) * (x.data[start + i] - mean);
    }
    variance /= static_cast<double>(columns);
    const double factor = 1.0 / std::sqrt(variance + evaluation.attributes.number("epsilon"));
    for (std::size_t i = 0; i < columns; ++i) {
      evaluation.results[0].data[start + i] =
          (x.data[start + i] - mean) * factor * weight[i] + bias[i];
    }
  }
}

Cost cost(Types operands, Types results, const Attributes&) {
  return elementwise_cost(operands, results, 7);
}

std::vector<Example> examples() {
  return {{{{tensor_type({3, 67})}, {tensor_type({67})}, {tensor_type({67})}},
           {{"epsilon", 1e-5}},
           64}};
}

Gradients gradient(const Differentiation& at) {
  const std::int32_t x = at.operands[0];
  const std::int32_t dy = at.gradients[0];
  Gradients gradients(3, ir::kNoGradient);
  if (at.wanted[0] != 0) {
    gradients[0] = emit_one(at, "layer_norm_gradient", {x, at.operands[1], dy}, at.attributes);
  }
  if (at.wanted[1] != 0) {
    gradients[1] = emit_one(at, "layer_norm_weight_gradient", {x, dy}, at.attributes);
  }
  if (at.wanted[2] != 0) gradients[2] = emit_one(at, "column_sum", {dy});
  return gradients;
}

Tangents tangent(const Linearization& at) {
  const std::int32_t x = at.operands[0];
  std::int32_t sum = ir::kNoTangent;
  if (at.tangents[0] != ir::kNoTangent) {
    const std::int32_t one = ones(at, at.types[0].columns());
    sum = emit_one(at, "multiply",
                   {emit_one(at, "layer_norm_gradient", {x, one, at.tangents[0]}, at.attributes),
                    at.operands[1]});
  }
  if (at.tangents[1] != ir::kNoTangent) {
    const std::int32_t zeros = emit_one(at, "scale", {at.operands[2]}, {{"factor", 0.0}});
    sum = add_tangents(at, sum,
                       emit_one(at, "layer_norm", {x, at.tangents[1], zeros}, at.attributes));
  }
  if (at.tangents[2] != ir::kNoTangent && sum == ir::kNoTangent) {
    sum = emit_one(at, "scale", {x}, {{"factor", 0.0}});
  }
  return {add_tangents(at, sum, at.tangents[2])};
}

}  // namespace

const OpDescriptor& layer_norm_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "layer_norm";
    op.summary =
        "(N, C), (C), (C) -> (N, C): (x - mean) / sqrt(variance + epsilon) * weight + bias";
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

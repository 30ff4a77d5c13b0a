// RMS norm over the last dimension (Zhang & Sennrich 2019).
// SPDX-License-Identifier: Apache-2.0
#include "ops/registry.h"
#include "ops/support.h"

namespace hone::ops {
namespace {

TypesResult infer(Types operands, const Attributes&) {
  const bool fits = operands.size() == 2 && is_dense(operands[0]) && is_dense(operands[1]) &&
                    operands[1].shape == Shape{operands[0].columns()};
  if (!fits) return ir::type_error("rms_norm", "(N, C) and (C), f32", operands);
  return std::vector<Type>{operands[0]};
}

void evaluate(const Evaluation& evaluation) {
  const Tensor& x = *evaluation.operands[0];
  const auto columns = static_cast<std::size_t>(x.type.columns());
  for (std::size_t start = 0; start < x.data.size(); start += columns) {
    rms_norm_row(std::span(x.data).subspan(start, columns), evaluation.operands[1]->data,
                 evaluation.attributes.number("epsilon"),
                 std::span(evaluation.results[0].data).subspan(start, columns));
  }
}

Cost cost(Types operands, Types results, const Attributes&) {
  return elementwise_cost(operands, results, 4);
}

std::vector<Example> examples() {
  return {{{{tensor_type({3, 67})}, {tensor_type({67})}}, {{"epsilon", 1e-5}}, 64},
          {{{tensor_type({2, 576})}, {tensor_type({576})}}, {{"epsilon", 1e-6}}, 128}};
}

Gradients gradient(const Differentiation& at) {
  const std::int32_t x = at.operands[0];
  const std::int32_t dy = at.gradients[0];
  Gradients gradients(2, ir::kNoGradient);
  if (at.wanted[0] != 0) {
    gradients[0] = emit_one(at, "rms_norm_gradient", {x, at.operands[1], dy}, at.attributes);
  }
  if (at.wanted[1] != 0) {
    gradients[1] = emit_one(at, "rms_norm_weight_gradient", {x, dy}, at.attributes);
  }
  return gradients;
}

Tangents tangent(const Linearization& at) {
  const std::int32_t x = at.operands[0];
  const std::int32_t weight = at.operands[1];
  std::int32_t by_x = ir::kNoTangent;
  if (at.tangents[0] != ir::kNoTangent) {
    const std::int32_t one = ones(at, at.types[0].columns());
    by_x = emit_one(
        at, "multiply",
        {emit_one(at, "rms_norm_gradient", {x, one, at.tangents[0]}, at.attributes), weight});
  }
  return {add_tangents(at, by_x, emit_one(at, "rms_norm", {x, at.tangents[1]}, at.attributes))};
}

}  // namespace

const OpDescriptor& rms_norm_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "rms_norm";
    op.summary = "(N, C), (C) -> (N, C): x / sqrt(mean(x^2) + epsilon) * weight, row by row";
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

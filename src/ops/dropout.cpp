// Dropout (Srivastava et al. 2014, inverted): elements become zero by chance, the others grow to
// make up for it. The chance is named, so the backward part and a replay draw the same.
// SPDX-License-Identifier: Apache-2.0
#include "ops/dropout_support.h"
#include "ops/registry.h"
#include "ops/support.h"

namespace hone::ops {
namespace {

// operands: x (N, C) and draws (2) i32: the run's seed and the step. `part` of the elements is
// dropped; `stream` tells one dropout of a graph from another.
TypesResult infer(Types operands, const Attributes& attributes) {
  const double part = attributes.number("part");
  const bool fits = operands.size() == 2 && is_dense(operands[0]) && is_indices(operands[1]) &&
                    operands[1].shape[0] == 2 && part >= 0 && part < 1;
  if (!fits) return ir::type_error("dropout", "(N, C) and (2) i32, 0 <= part < 1", operands);
  return std::vector<Type>{operands[0]};
}

void evaluate(const Evaluation& evaluation) {
  const Tensor& x = *evaluation.operands[0];
  const std::vector<double>& draws = evaluation.operands[1]->data;
  const DropoutDraw draw =
      dropout_draw(evaluation.attributes.number("part"), evaluation.attributes.integer("stream"),
                   static_cast<std::int32_t>(draws[0]), static_cast<std::int32_t>(draws[1]));
  for (std::size_t i = 0; i < x.data.size(); ++i) {
    evaluation.results[0].data[i] =
        dropout_keeps(draw, i) ? x.data[i] * static_cast<double>(draw.factor) : 0.0;
  }
}

Cost cost(Types operands, Types results, const Attributes&) {
  return elementwise_cost(operands, results, 20);
}

// The same elements are dropped of the gradient.
std::vector<std::int32_t> gradient(const ir::Differentiation& d) {
  return {d.emit("dropout", {d.gradients[0], d.operands[1]}, d.attributes)[0], ir::kNoGradient};
}

std::vector<Example> examples() {
  const auto example = [](double part, std::int64_t stream) {
    return Example{
        {{tensor_type({3, 67})}, {tensor_type({2}, DType::kI32), Fill::kIota, 0, {7, 3}}},
        {{"part", part}, {"stream", stream}},
        4};
  };
  return {example(0.25, 0), example(0.5, 11), example(0, 1)};
}

Tangents tangent(const Linearization& at) { return linear_tangent(at, "dropout"); }

}  // namespace

const OpDescriptor& dropout_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "dropout";
    op.summary =
        "(N, C), (2) i32 -> (N, C): each element zero with chance `part`, else x / (1 - part)";
    op.infer = infer;
    op.evaluate = evaluate;
    op.cost = cost;
    op.examples = examples;
    op.gradient = gradient;
    op.tangent = tangent;
    return op;
  }();
  return kOp;
}

}  // namespace hone::ops

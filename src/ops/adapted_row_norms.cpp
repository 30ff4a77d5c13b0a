// 1 / the norm of every row of a weight with its adapter: what DoRA divides by.
// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "ops/registry.h"
#include "ops/support.h"

namespace hone::ops {
namespace {

// operands: W (R, K) of any type, A (r, K), B (R, r); attribute `scale`.
TypesResult infer(Types operands, const Attributes&) {
  const bool fits = operands.size() == 3 && is_weight(operands[0]) && is_dense(operands[1]) &&
                    is_dense(operands[2]) && operands[1].shape.size() == 2 &&
                    operands[2].shape.size() == 2 &&
                    operands[1].columns() == operands[0].columns() &&
                    operands[2].shape == Shape{operands[0].rows(), operands[1].rows()};
  if (!fits) return ir::type_error("adapted_row_norms", "W (R, K), A (r, K), B (R, r)", operands);
  return std::vector<Type>{tensor_type({operands[0].rows()})};
}

void evaluate(const Evaluation& evaluation) {
  const Tensor& w = *evaluation.operands[0];
  const Tensor& a = *evaluation.operands[1];
  const Tensor& b = *evaluation.operands[2];
  const auto columns = static_cast<std::size_t>(w.type.columns());
  const auto rank = static_cast<std::size_t>(a.type.rows());
  const double scale = evaluation.attributes.number("scale", 1);
  for (std::size_t row = 0; row < static_cast<std::size_t>(w.type.rows()); ++row) {
    double squares = 0;
    for (std::size_t k = 0; k < columns; ++k) {
      double value = w.data[row * columns + k];
      for (std::size_t i = 0; i < rank; ++i) {
        value += scale * b.data[row * rank + i] * a.data[i * columns + k];
      }
      squares += value * value;
    }
    evaluation.results[0].data[row] = squares > 0 ? 1.0 / std::sqrt(squares) : 0.0;
  }
}

Cost cost(Types operands, Types results, const Attributes&) {
  const double each = 2.0 * static_cast<double>(operands[1].rows()) + 2;
  return {each * static_cast<double>(operands[0].elements()),
          total_bytes(operands) + total_bytes(results)};
}

// Constant to the loss, by DoRA's choice (Liu et al. 2024, section 4.3): the norm follows the
// weights, but no gradient flows through it.
std::vector<std::int32_t> gradient(const ir::Differentiation&) {
  return {ir::kNoGradient, ir::kNoGradient, ir::kNoGradient};
}

std::vector<Example> examples() {
  return {{{{tensor_type({33, 64})}, {tensor_type({4, 64})}, {tensor_type({33, 4})}},
           {{"scale", 0.5}},
           256}};
}

}  // namespace

const OpDescriptor& adapted_row_norms_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "adapted_row_norms";
    op.summary = "(R, K), (r, K), (R, r) -> (R): 1 / norm of each row of W + scale * B A";
    op.infer = infer;
    op.evaluate = evaluate;
    op.cost = cost;
    op.examples = examples;
    op.gradient = gradient;
    op.straight_through = true;
    return op;
  }();
  return kOp;
}

}  // namespace hone::ops

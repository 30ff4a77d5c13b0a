// Weights of any type as int8 codes of their columns, turned: what the gradient to a matmul's input
// multiplies with, where the weights' own scales lie along their rows and would not leave the sum.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "ops/grid.h"
#include "ops/registry.h"
#include "ops/support.h"

namespace hone::ops {
namespace {

TypesResult infer(Types operands, const Attributes&) {
  const bool fits = operands.size() == 1 && is_weight(operands[0]) &&
                    operands[0].dtype != DType::kI8 && operands[0].dtype != DType::kI32;
  if (!fits) {
    return ir::type_error("weight_codes", "a weight (R, K)", operands);
  }
  const std::int64_t columns = operands[0].columns();
  return std::vector<Type>{tensor_type({columns, operands[0].rows()}, DType::kI8),
                           tensor_type({columns})};
}

void evaluate(const Evaluation& evaluation) {
  const Tensor& w = *evaluation.operands[0];
  const auto rows = static_cast<std::size_t>(w.type.rows());
  const auto columns = static_cast<std::size_t>(w.type.columns());
  for (std::size_t column = 0; column < columns; ++column) {
    float largest = 0;
    for (std::size_t row = 0; row < rows; ++row) {
      largest = std::max(largest, std::abs(static_cast<float>(w.data[row * columns + column])));
    }
    const Grid grid = grid_of(largest, 8);
    evaluation.results[1].data[column] = grid.scale;
    for (std::size_t row = 0; row < rows; ++row) {
      evaluation.results[0].data[column * rows + row] = grid.code(w.data[row * columns + column]);
    }
  }
}

Cost cost(Types operands, Types results, const Attributes&) {
  return elementwise_cost(operands, results, 4);
}

std::vector<Example> examples() {
  return {{{{tensor_type({48, 64})}}, {}, 1},
          {{{tensor_type({33, 96})}}, {}, 1},
          {{{tensor_type({5, 67})}}, {}, 1},
          {{{tensor_type({300, 290})}}, {}, 1}};
}

}  // namespace

const OpDescriptor& weight_codes_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "weight_codes";
    op.summary = "weight (R, K) -> codes (K, R) i8, scales (K): symmetric, to nearest";
    op.infer = infer;
    op.evaluate = evaluate;
    op.cost = cost;
    op.examples = examples;
    return op;
  }();
  return kOp;
}

}  // namespace hone::ops

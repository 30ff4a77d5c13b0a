// The gradient of matmul_scaled's input: rows times the scaled weight, whose rows are inputs here.
// SPDX-License-Identifier: Apache-2.0
#include "ops/registry.h"
#include "ops/scaled_support.h"

namespace hone::ops {
namespace {

TypesResult infer(Types operands, const Attributes&) {
  const bool fits = operands.size() == 3 && is_dense(operands[0]) &&
                    operands[0].shape.size() == 2 && fits_factors(operands[1], operands[2]) &&
                    operands[0].columns() == operands[1].rows();
  if (!fits) {
    return ir::type_error("matmul_scaled_back",
                          "(N, R) f32, a weight (R, K) and factors (R, K / group) in f32",
                          operands);
  }
  return std::vector<Type>{tensor_type({operands[0].rows(), operands[1].columns()})};
}

void evaluate(const Evaluation& evaluation) {
  const Tensor& dy = *evaluation.operands[0];
  const Tensor w =
      scaled_weight(*evaluation.operands[1], *evaluation.operands[2], evaluation.attributes);
  const auto tokens = static_cast<std::size_t>(dy.type.rows());
  const auto rows = static_cast<std::size_t>(w.type.rows());
  const auto columns = static_cast<std::size_t>(w.type.columns());
  for (std::size_t n = 0; n < tokens; ++n) {
    double* out = evaluation.results[0].data.data() + n * columns;
    for (std::size_t r = 0; r < rows; ++r) {
      const double factor = dy.data[n * rows + r];
      for (std::size_t k = 0; k < columns; ++k) out[k] += factor * w.data[r * columns + k];
    }
  }
}

Cost cost(Types operands, Types results, const Attributes&) {
  return {2.0 * static_cast<double>(operands[0].elements() * operands[1].columns()),
          total_bytes(operands) + total_bytes(results)};
}

std::vector<Example> examples() {
  return {{{{tensor_type({3, 48})}, {tensor_type({48, 64})}, {tensor_type({48, 2})}}, {}, 256},
          {{{tensor_type({5, 33})}, {tensor_type({33, 96})}, {tensor_type({33, 3})}},
           {{"delta", true}},
           256}};
}

}  // namespace

const OpDescriptor& matmul_scaled_back_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "matmul_scaled_back";
    op.summary =
        "(N, R), (R, K), (R, K / group) -> (N, K): dy times the scaled weight, the gradient of "
        "matmul_scaled's input";
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

// A matmul's gradient to its input: rows times a weight matrix whose rows are the inputs here.
// SPDX-License-Identifier: Apache-2.0
#include "ops/registry.h"
#include "ops/rounding.h"
#include "ops/support.h"

namespace hone::ops {
namespace {

TypesResult infer(Types operands, const Attributes& attributes) {
  const bool fits = operands.size() == 2 && is_dense(operands[0]) &&
                    operands[0].shape.size() == 2 && is_weight(operands[1]) &&
                    operands[0].columns() == operands[1].rows() &&
                    fits_rounding(attributes, operands[0]);
  if (!fits) return ir::type_error("matmul_back", "(N, R) f32 and a weight (R, K)", operands);
  return std::vector<Type>{tensor_type({operands[0].rows(), operands[1].columns()})};
}

void evaluate(const Evaluation& evaluation) {
  const Tensor dy = rounded(*evaluation.operands[0], evaluation.attributes);
  const Tensor w = rounded(*evaluation.operands[1], evaluation.attributes);
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

// z = dy W is linear in both: d(dy) = g W^T, dW = dy^T g.
std::vector<std::int32_t> gradient(const ir::Differentiation& differentiation) {
  const auto& [operands, types, results, gradients, wanted, attributes, emit] = differentiation;
  std::vector<std::int32_t> out(2, ir::kNoGradient);
  if (gradients[0] == ir::kNoGradient) return out;
  if (wanted[0] != 0) out[0] = emit("matmul", {gradients[0], operands[1]}, attributes)[0];
  if (wanted[1] != 0) out[1] = emit("matmul_outer", {operands[0], gradients[0]}, attributes)[0];
  return out;
}

// The bound grows with the length of the sums: R times half an ulp, in a random walk less.
std::vector<Example> examples() {
  return {{{{tensor_type({3, 48})}, {tensor_type({48, 64})}}, {}, 256},
          {{{tensor_type({1, 33})}, {tensor_type({33, 96})}}, {}, 256},
          {{{tensor_type({13, 300})}, {tensor_type({300, 47})}}, {}, 512},
          {{{tensor_type({40, 17})}, {tensor_type({17, 290})}}, {}, 256},
          {{{tensor_type({9, 47})}, {tensor_type({47, 70})}}, {{"rounding", "bf16"}}, 256}};
}

}  // namespace

const OpDescriptor& matmul_back_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "matmul_back";
    op.summary = "(N, R), (R, K) -> (N, K): dy times the weight, the gradient of matmul's input";
    op.infer = infer;
    op.evaluate = evaluate;
    op.cost = cost;
    op.examples = examples;
    op.gradient = gradient;
    op.row_wise = true;
    return op;
  }();
  return kOp;
}

}  // namespace hone::ops

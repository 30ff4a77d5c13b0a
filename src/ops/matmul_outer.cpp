// A matmul's gradient to its weight: the sum over tokens of outer products.
// SPDX-License-Identifier: Apache-2.0
#include "ops/registry.h"
#include "ops/rounding.h"
#include "ops/support.h"

namespace hone::ops {
namespace {

TypesResult infer(Types operands, const Attributes& attributes) {
  bool fits = operands.size() == 2 && operands[0].rows() == operands[1].rows() &&
              fits_rounding(attributes, operands[0]);
  for (const Type& type : operands) fits = fits && is_dense(type) && type.shape.size() == 2;
  if (!fits) return ir::type_error("matmul_outer", "(N, R) and (N, K), f32", operands);
  return std::vector<Type>{tensor_type({operands[0].columns(), operands[1].columns()})};
}

void evaluate(const Evaluation& evaluation) {
  const Tensor dy = rounded(*evaluation.operands[0], evaluation.attributes);
  const Tensor x = rounded(*evaluation.operands[1], evaluation.attributes);
  const auto tokens = static_cast<std::size_t>(dy.type.rows());
  const auto rows = static_cast<std::size_t>(dy.type.columns());
  const auto columns = static_cast<std::size_t>(x.type.columns());
  for (std::size_t n = 0; n < tokens; ++n) {
    for (std::size_t r = 0; r < rows; ++r) {
      const double factor = dy.data[n * rows + r];
      double* out = evaluation.results[0].data.data() + r * columns;
      for (std::size_t k = 0; k < columns; ++k) out[k] += factor * x.data[n * columns + k];
    }
  }
}

Cost cost(Types operands, Types results, const Attributes&) {
  return {2.0 * static_cast<double>(results[0].elements() * operands[0].rows()),
          total_bytes(operands) + total_bytes(results)};
}

// G = dy^T x: d(dy) = x g^T, dx = dy g.
std::vector<std::int32_t> gradient(const ir::Differentiation& differentiation) {
  const auto& [operands, types, results, gradients, wanted, attributes, emit] = differentiation;
  std::vector<std::int32_t> out(2, ir::kNoGradient);
  if (gradients[0] == ir::kNoGradient) return out;
  if (wanted[0] != 0) out[0] = emit("matmul", {operands[1], gradients[0]}, attributes)[0];
  if (wanted[1] != 0) out[1] = emit("matmul_back", {operands[0], gradients[0]}, attributes)[0];
  return out;
}

std::vector<Example> examples() {
  return {{{{tensor_type({3, 48})}, {tensor_type({3, 64})}}, {}, 64},
          {{{tensor_type({1, 33})}, {tensor_type({1, 5})}}, {}, 64},
          {{{tensor_type({270, 16})}, {tensor_type({270, 70})}}, {}, 512},
          {{{tensor_type({40, 61})}, {tensor_type({40, 17})}}, {}, 256},
          {{{tensor_type({41, 53})}, {tensor_type({41, 37})}}, {{"rounding", "bf16"}}, 256}};
}

}  // namespace

const OpDescriptor& matmul_outer_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "matmul_outer";
    op.summary = "(N, R), (N, K) -> (R, K): dy^T x, the gradient of matmul's weight";
    op.infer = infer;
    op.evaluate = evaluate;
    op.cost = cost;
    op.examples = examples;
    op.gradient = gradient;
    return op;
  }();
  return kOp;
}

}  // namespace hone::ops

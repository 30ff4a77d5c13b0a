// The gradient of matmul_scaled's factors: of every group of columns, the product of its weights
// and of their own gradient dy^T x, summed.
// SPDX-License-Identifier: Apache-2.0
#include "ops/registry.h"
#include "ops/support.h"

namespace hone::ops {
namespace {

// Attribute: `group`, columns that share a factor.
TypesResult infer(Types operands, const Attributes& attributes) {
  const std::int64_t group = attributes.integer("group");
  bool fits = operands.size() == 3 && is_weight(operands[2]) && group > 0 &&
              operands[2].columns() % group == 0;
  for (std::size_t i = 0; fits && i < 2; ++i) {
    fits = is_dense(operands[i]) && operands[i].shape.size() == 2;
  }
  fits = fits && operands[0].rows() == operands[1].rows() &&
         operands[0].columns() == operands[2].rows() &&
         operands[1].columns() == operands[2].columns();
  if (!fits) {
    return ir::type_error("matmul_scaled_outer",
                          "(N, R) and (N, K) f32, a weight (R, K), a group that divides K",
                          operands);
  }
  return std::vector<Type>{tensor_type({operands[2].rows(), operands[2].columns() / group})};
}

void evaluate(const Evaluation& evaluation) {
  const Tensor& dy = *evaluation.operands[0];
  const Tensor& x = *evaluation.operands[1];
  const Tensor& w = *evaluation.operands[2];
  const auto tokens = static_cast<std::size_t>(dy.type.rows());
  const auto rows = static_cast<std::size_t>(w.type.rows());
  const auto columns = static_cast<std::size_t>(w.type.columns());
  const auto group = static_cast<std::size_t>(evaluation.attributes.integer("group"));
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::size_t k = 0; k < columns; ++k) {
      double slope = 0;
      for (std::size_t n = 0; n < tokens; ++n) {
        slope += dy.data[n * rows + r] * x.data[n * columns + k];
      }
      evaluation.results[0].data[(r * columns + k) / group] += slope * w.data[r * columns + k];
    }
  }
}

Cost cost(Types operands, Types results, const Attributes&) {
  return {2.0 * static_cast<double>(operands[0].elements() * operands[1].columns()),
          total_bytes(operands) + total_bytes(results)};
}

std::vector<Example> examples() {
  return {{{{tensor_type({3, 48})}, {tensor_type({3, 64})}, {tensor_type({48, 64})}},
           {{"group", std::int64_t{32}}},
           256},
          {{{tensor_type({7, 33})}, {tensor_type({7, 96})}, {tensor_type({33, 96})}},
           {{"group", std::int64_t{16}}},
           256}};
}

}  // namespace

const OpDescriptor& matmul_scaled_outer_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "matmul_scaled_outer";
    op.summary =
        "(N, R), (N, K), (R, K) -> (R, K / group): sums over groups of W dy^T x, the gradient of "
        "matmul_scaled's factors";
    op.infer = infer;
    op.evaluate = evaluate;
    op.cost = cost;
    op.examples = examples;
    return op;
  }();
  return kOp;
}

}  // namespace hone::ops

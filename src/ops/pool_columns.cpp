// Sums over blocks of 32 columns: what a pooled adapter reads (Xu et al. 2023, QA-LoRA,
// section 3.3).
// SPDX-License-Identifier: Apache-2.0
#include "ops/registry.h"
#include "ops/support.h"

namespace hone::ops {
namespace {

constexpr std::int64_t kBlock = 32;  // columns that share a scale and a minimum in Q4_1 and Q5_1

TypesResult infer(Types operands, const Attributes&) {
  const bool fits =
      operands.size() == 1 && is_activation(operands[0]) && operands[0].columns() % kBlock == 0;
  if (!fits) {
    return ir::type_error("pool_columns", "(N, C) f32 or int8 rows, C a multiple of 32", operands);
  }
  return std::vector<Type>{tensor_type({operands[0].rows(), operands[0].columns() / kBlock})};
}

void evaluate(const Evaluation& evaluation) {
  const std::vector<double>& x = evaluation.operands[0]->data;
  for (std::size_t i = 0; i < x.size(); ++i) evaluation.results[0].data[i / kBlock] += x[i];
}

Cost cost(Types operands, Types results, const Attributes&) {
  return {static_cast<double>(operands[0].elements()),
          total_bytes(operands) + total_bytes(results)};
}

std::vector<Example> examples() {
  return {{{{tensor_type({3, 96})}}, {}, 64}, {{{tensor_type({1, 32})}}, {}, 64}};
}

// d/dx of a sum is the sum's gradient, for every column of the block.
std::vector<std::int32_t> gradient(const ir::Differentiation& differentiation) {
  if (differentiation.gradients[0] == ir::kNoGradient) return {ir::kNoGradient};
  return differentiation.emit("spread_columns", {differentiation.gradients[0]}, {});
}

Tangents tangent(const Linearization& at) { return linear_tangent(at, "pool_columns"); }

}  // namespace

const OpDescriptor& pool_columns_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "pool_columns";
    op.summary = "(N, C) f32 or int8 rows -> (N, C / 32): sums over blocks of 32 columns";
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

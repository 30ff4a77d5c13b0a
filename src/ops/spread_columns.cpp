// Every column 32 times: the transpose of pool_columns, and its gradient.
// SPDX-License-Identifier: Apache-2.0
#include "ops/registry.h"
#include "ops/support.h"

namespace hone::ops {
namespace {

constexpr std::int64_t kBlock = 32;

TypesResult infer(Types operands, const Attributes&) {
  if (operands.size() != 1 || !is_dense(operands[0]) || operands[0].shape.size() != 2) {
    return ir::type_error("spread_columns", "(N, C) f32", operands);
  }
  return std::vector<Type>{tensor_type({operands[0].rows(), operands[0].columns() * kBlock})};
}

void evaluate(const Evaluation& evaluation) {
  std::vector<double>& out = evaluation.results[0].data;
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = evaluation.operands[0]->data[i / kBlock];
}

Cost cost(Types operands, Types results, const Attributes&) {
  return {0, total_bytes(operands) + total_bytes(results)};
}

std::vector<Example> examples() { return {{{{tensor_type({3, 5})}}, {}, 0}}; }

std::vector<std::int32_t> gradient(const ir::Differentiation& differentiation) {
  if (differentiation.gradients[0] == ir::kNoGradient) return {ir::kNoGradient};
  return differentiation.emit("pool_columns", {differentiation.gradients[0]}, {});
}

Tangents tangent(const Linearization& at) { return linear_tangent(at, "spread_columns"); }

}  // namespace

const OpDescriptor& spread_columns_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "spread_columns";
    op.summary = "(N, C) -> (N, 32 C): every column 32 times, side by side";
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

// Softmax over the last dimension.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include "ops/registry.h"
#include "ops/support.h"

namespace hone::ops {
namespace {

TypesResult infer(Types operands, const Attributes&) { return same_type("softmax", operands, 1); }

void evaluate(const Evaluation& evaluation) {
  const Tensor& x = *evaluation.operands[0];
  const auto columns = static_cast<std::size_t>(x.type.columns());
  for (std::size_t start = 0; start < x.data.size(); start += columns) {
    double largest = x.data[start];
    for (std::size_t i = 0; i < columns; ++i) largest = std::max(largest, x.data[start + i]);
    double sum = 0;
    for (std::size_t i = 0; i < columns; ++i) sum += std::exp(x.data[start + i] - largest);
    for (std::size_t i = 0; i < columns; ++i) {
      evaluation.results[0].data[start + i] = std::exp(x.data[start + i] - largest) / sum;
    }
  }
}

Cost cost(Types operands, Types results, const Attributes&) {
  return elementwise_cost(operands, results, 10);
}

std::vector<Example> examples() {
  return {{{{tensor_type({3, 67})}}, {}, 64}, {{{tensor_type({1, 4099})}}, {}, 64}};
}

Gradients gradient(const Differentiation& at) {
  return {emit_one(at, "softmax_gradient", {at.results[0], at.gradients[0]})};
}

Tangents tangent(const Linearization& at) {
  return {emit_one(at, "softmax_gradient", {at.results[0], at.tangents[0]})};
}

}  // namespace

const OpDescriptor& softmax_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "softmax";
    op.summary = "(N, C) -> (N, C): softmax of each row";
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

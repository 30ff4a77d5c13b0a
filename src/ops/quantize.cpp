// Activations to int8 codes with a scale and a sum for each block of 32 columns.
// SPDX-License-Identifier: Apache-2.0
#include "ops/registry.h"
#include "ops/support.h"

namespace hone::ops {
namespace {

TypesResult infer(Types operands, const Attributes&) {
  if (operands.size() != 1 || !is_dense(operands[0]) || operands[0].shape.size() != 2) {
    return ir::type_error("quantize", "(N, C) f32", operands);
  }
  return std::vector<Type>{{DType::kI8, operands[0].shape, Layout::kInt8Rows}};
}

void evaluate(const Evaluation& evaluation) {
  const Tensor& x = *evaluation.operands[0];
  const auto columns = static_cast<std::size_t>(x.type.columns());
  for (std::size_t start = 0; start < x.data.size(); start += columns) {
    quantize_row(std::span(x.data).subspan(start, columns),
                 std::span(evaluation.results[0].data).subspan(start, columns));
  }
}

Cost cost(Types operands, Types results, const Attributes&) {
  return elementwise_cost(operands, results, 4);
}

// Straight through (Bengio, Léonard & Courville 2013): rounding counts as the identity.
std::vector<std::int32_t> gradient(const ir::Differentiation& d) { return {d.gradients[0]}; }

std::vector<Example> examples() {
  return {{{{tensor_type({3, 64})}}, {}, 4}, {{{tensor_type({2, 80})}}, {}, 4}};
}

Tangents tangent(const Linearization& at) { return {at.tangents[0]}; }

}  // namespace

const OpDescriptor& quantize_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "quantize";
    op.summary = "(N, C) f32 -> (N, C) int8 rows: symmetric, max |x| / 127 for each 32 columns";
    op.infer = infer;
    op.evaluate = evaluate;
    op.cost = cost;
    op.examples = examples;
    op.gradient = gradient;
    op.tangent = tangent;
    op.straight_through = true;
    op.row_wise = true;
    return op;
  }();
  return kOp;
}

}  // namespace hone::ops

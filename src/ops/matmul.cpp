// Rows times a weight matrix, whose rows are the outputs (the layout of every model file).
// SPDX-License-Identifier: Apache-2.0
#include "ops/registry.h"
#include "ops/rounding.h"
#include "ops/support.h"

namespace hone::ops {
namespace {

TypesResult infer(Types operands, const Attributes& attributes) {
  const bool fits = operands.size() == 2 && is_activation(operands[0]) && is_weight(operands[1]) &&
                    operands[0].columns() == operands[1].columns() &&
                    fits_rounding(attributes, operands[0]);
  if (!fits) return ir::type_error("matmul", "(N, K) and a weight (R, K)", operands);
  return std::vector<Type>{tensor_type({operands[0].rows(), operands[1].rows()})};
}

void evaluate(const Evaluation& evaluation) {
  matmul(rounded(*evaluation.operands[0], evaluation.attributes),
         rounded(*evaluation.operands[1], evaluation.attributes), evaluation.results[0].data);
}

Cost cost(Types operands, Types results, const Attributes&) {
  return {2.0 * static_cast<double>(results[0].elements() * operands[1].columns()),
          total_bytes(operands) + total_bytes(results)};
}

std::vector<Example> examples() {
  return {{{{tensor_type({3, 64})}, {tensor_type({48, 64})}}, {}, 256},
          {{{tensor_type({1, 96})}, {tensor_type({33, 96})}}, {}, 256},
          {{{tensor_type({7, 31})}, {tensor_type({35, 31})}}, {{"rounding", "bf16"}}, 256}};
}

// y = x W^T: dx = dy W, dW = dy^T x.
std::vector<std::int32_t> gradient(const ir::Differentiation& differentiation) {
  const auto& [operands, types, results, gradients, wanted, attributes, emit] = differentiation;
  std::vector<std::int32_t> out(2, ir::kNoGradient);
  if (gradients[0] == ir::kNoGradient) return out;
  if (wanted[0] != 0) out[0] = emit("matmul_back", {gradients[0], operands[1]}, attributes)[0];
  if (wanted[1] != 0) out[1] = emit("matmul_outer", {gradients[0], operands[0]}, attributes)[0];
  return out;
}

Tangents tangent(const Linearization& at) {
  // int8 rows: the derivative gets scales of its own, or it would drown in those of the value.
  const bool coded = at.types[0].layout != Layout::kRowMajor;
  const std::int32_t change = coded ? emit_one(at, "quantize", {at.tangents[0]}) : at.tangents[0];
  return {add_tangents(at, emit_one(at, "matmul", {change, at.operands[1]}, at.attributes),
                       emit_one(at, "matmul", {at.operands[0], at.tangents[1]}, at.attributes))};
}

}  // namespace

const OpDescriptor& matmul_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "matmul";
    op.summary = "(N, K), (R, K) -> (N, R): x times the transposed weight";
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

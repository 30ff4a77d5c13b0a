// Rows times a weight matrix whose blocks are each multiplied by a factor of their own: a change of
// the quantization scales (QZO, Shang et al. 2025, section 3) that leaves the weight as it is.
// SPDX-License-Identifier: Apache-2.0
#include "ops/registry.h"
#include "ops/scaled_support.h"

namespace hone::ops {
namespace {

// Attribute: `delta`, the factors are F instead of 1 + F.
TypesResult infer(Types operands, const Attributes&) {
  const bool fits = operands.size() == 3 && is_activation(operands[0]) &&
                    fits_factors(operands[1], operands[2]) &&
                    operands[0].columns() == operands[1].columns();
  if (!fits) {
    return ir::type_error("matmul_scaled",
                          "(N, K), a weight (R, K) and factors (R, K / group) in f32", operands);
  }
  return std::vector<Type>{tensor_type({operands[0].rows(), operands[1].rows()})};
}

void evaluate(const Evaluation& evaluation) {
  matmul(*evaluation.operands[0],
         scaled_weight(*evaluation.operands[1], *evaluation.operands[2], evaluation.attributes),
         evaluation.results[0].data);
}

Cost cost(Types operands, Types results, const Attributes&) {
  return {2.0 * static_cast<double>(results[0].elements() * operands[1].columns()),
          total_bytes(operands) + total_bytes(results)};
}

std::vector<Example> examples() {
  return {{{{tensor_type({3, 64})}, {tensor_type({48, 64})}, {tensor_type({48, 2})}}, {}, 256},
          {{{tensor_type({1, 96})}, {tensor_type({33, 96})}, {tensor_type({33, 3})}}, {}, 256},
          {{{tensor_type({4, 64})}, {tensor_type({17, 64})}, {tensor_type({17, 2})}},
           {{"delta", true}},
           256}};
}

// y = x (g W)^T, g = 1 + F or F: dx = dy (g W), dF = sums over groups of W (dy^T x). The weight's
// codes have no gradient.
Gradients gradient(const Differentiation& at) {
  Gradients out(3, ir::kNoGradient);
  const std::int32_t dy = at.gradients[0];
  if (dy == ir::kNoGradient) return out;
  if (at.wanted[0] != 0) {
    out[0] =
        emit_one(at, "matmul_scaled_back", {dy, at.operands[1], at.operands[2]}, at.attributes);
  }
  if (at.wanted[2] != 0) {
    const bool coded = at.types[0].layout != Layout::kRowMajor;
    const std::int32_t x = coded ? emit_one(at, "dequantize", {at.operands[0]}) : at.operands[0];
    out[2] = emit_one(at, "matmul_scaled_outer", {dy, x, at.operands[1]},
                      {{"group", at.types[1].columns() / at.types[2].columns()}});
  }
  return out;
}

Tangents tangent(const Linearization& at) {
  // int8 rows: the derivative gets scales of its own, as in matmul.
  const bool coded = at.types[0].layout != Layout::kRowMajor && at.tangents[0] != ir::kNoTangent;
  const std::int32_t change = coded ? emit_one(at, "quantize", {at.tangents[0]}) : at.tangents[0];
  Attributes delta = at.attributes;
  delta.set("delta", true);
  return {add_tangents(
      at, emit_one(at, "matmul_scaled", {change, at.operands[1], at.operands[2]}, at.attributes),
      emit_one(at, "matmul_scaled", {at.operands[0], at.operands[1], at.tangents[2]}, delta))};
}

}  // namespace

const OpDescriptor& matmul_scaled_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "matmul_scaled";
    op.summary =
        "(N, K), (R, K), (R, K / group) -> (N, R): x times the transposed weight, whose groups of "
        "columns are each multiplied by 1 + factor";
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

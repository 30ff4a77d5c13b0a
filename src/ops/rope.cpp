// Rotary embedding: turns pairs of dimensions of every head by the angles of a table.
// SPDX-License-Identifier: Apache-2.0
#include "ops/registry.h"
#include "ops/support.h"

namespace hone::ops {
namespace {

// Pairs are (i, i + dims / 2), or (2 i, 2 i + 1) where `interleaved`; dimensions past `dims` stay.
// `inverse` turns backwards.
TypesResult infer(Types operands, const Attributes& attributes) {
  const std::int64_t head = attributes.integer("head_size");
  const bool fits = operands.size() == 2 && is_dense(operands[0]) && is_dense(operands[1]) &&
                    operands[0].shape.size() == 2 && head > 0 &&
                    operands[0].columns() % head == 0 && operands[1].columns() <= head &&
                    operands[1].rows() == operands[0].rows();
  if (!fits)
    return ir::type_error("rope", "(N, heads * head_size) and a table (N, dims)", operands);
  return std::vector<Type>{operands[0]};
}

void evaluate(const Evaluation& evaluation) {
  const Tensor& x = *evaluation.operands[0];
  const Tensor& table = *evaluation.operands[1];
  const auto head = static_cast<std::size_t>(evaluation.attributes.integer("head_size"));
  const auto half = static_cast<std::size_t>(table.type.columns()) / 2;
  const bool interleaved = evaluation.attributes.flag("interleaved");
  const double direction = evaluation.attributes.flag("inverse") ? -1 : 1;
  const auto columns = static_cast<std::size_t>(x.type.columns());
  std::vector<double>& out = evaluation.results[0].data;
  out = x.data;
  for (std::size_t start = 0; start < x.data.size(); start += head) {
    const std::size_t token = start / columns;
    for (std::size_t i = 0; i < half; ++i) {
      const std::size_t first = start + (interleaved ? 2 * i : i);
      const std::size_t second = interleaved ? first + 1 : first + half;
      const double cosine = table.data[token * 2 * half + i];
      const double sine = direction * table.data[token * 2 * half + half + i];
      out[first] = x.data[first] * cosine - x.data[second] * sine;
      out[second] = x.data[first] * sine + x.data[second] * cosine;
    }
  }
}

Cost cost(Types operands, Types results, const Attributes&) {
  return elementwise_cost(operands, results, 3);
}

std::vector<Example> examples() {
  const std::vector<ExampleOperand> operands = {{tensor_type({3, 128})}, {tensor_type({3, 32})}};
  return {{operands, {{"head_size", std::int64_t{32}}}, 8},
          {operands, {{"head_size", std::int64_t{32}}, {"interleaved", true}}, 8},
          {operands, {{"head_size", std::int64_t{32}}, {"inverse", true}}, 8},
          {operands, {{"head_size", std::int64_t{64}}}, 8}};
}

// A rotation's transpose is the rotation back. The angles come from positions: no gradient.
Gradients gradient(const Differentiation& at) {
  Attributes attributes = at.attributes;
  attributes.remove("inverse");
  if (!at.attributes.flag("inverse")) attributes.set("inverse", true);
  const bool wanted = at.wanted[0] != 0;
  return {wanted ? emit_one(at, "rope", {at.gradients[0], at.operands[1]}, attributes)
                 : ir::kNoGradient,
          ir::kNoGradient};
}

Tangents tangent(const Linearization& at) { return linear_tangent(at, "rope"); }

}  // namespace

const OpDescriptor& rope_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "rope";
    op.summary = "(N, H * D), (N, dims) -> (N, H * D): every head turned by its token's angles";
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

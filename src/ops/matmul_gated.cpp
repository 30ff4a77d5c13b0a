// The gate of an MLP: activation(x gate) * (x up), without either product in memory.
// SPDX-License-Identifier: Apache-2.0
#include "ops/registry.h"
#include "ops/support.h"

namespace hone::ops {
namespace {

TypesResult infer(Types operands, const Attributes& attributes) {
  const std::string_view activation = attributes.text("activation");
  const bool fits = operands.size() == 3 && operands[1].shape == operands[2].shape &&
                    (activation == "silu" || activation == "gelu") &&
                    matmul_op().infer(operands.first(2), {}).ok() && is_weight(operands[2]);
  if (!fits) {
    return ir::type_error("matmul_gated", "(N, K), two weights (R, K), `activation` silu or gelu",
                          operands);
  }
  return matmul_op().infer(operands.first(2), {});
}

void evaluate(const Evaluation& evaluation) {
  std::vector<double>& gate = evaluation.results[0].data;
  std::vector<double> up(gate.size());
  matmul(*evaluation.operands[0], *evaluation.operands[1], gate);
  matmul(*evaluation.operands[0], *evaluation.operands[2], up);
  const bool is_silu = evaluation.attributes.text("activation") == "silu";
  for (std::size_t i = 0; i < gate.size(); ++i) {
    gate[i] = (is_silu ? silu(gate[i]) : gelu_tanh(gate[i])) * up[i];
  }
}

Cost cost(Types operands, Types results, const Attributes&) {
  return {4.0 * static_cast<double>(results[0].elements() * operands[0].columns()),
          total_bytes(operands) + total_bytes(results)};
}

std::vector<std::int32_t> expand(std::span<const std::int32_t> operands, std::span<const Type>,
                                 const Attributes& attributes, const ir::Emit& emit) {
  const auto gate = emit("matmul", {operands[0], operands[1]}, {})[0];
  const auto up = emit("matmul", {operands[0], operands[2]}, {})[0];
  return emit("multiply", {emit(attributes.text("activation"), {gate}, {})[0], up}, {});
}

std::vector<Example> examples() {
  const std::vector<ExampleOperand> operands = {
      {tensor_type({3, 64})}, {tensor_type({48, 64})}, {tensor_type({48, 64})}};
  return {{operands, {{"activation", std::string("silu")}}, 1024},
          {operands, {{"activation", std::string("gelu")}}, 1024}};
}

}  // namespace

const OpDescriptor& matmul_gated_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "matmul_gated";
    op.summary = "(N, K), (R, K), (R, K) -> (N, R): activation(x gate) * (x up)";
    op.infer = infer;
    op.evaluate = evaluate;
    op.cost = cost;
    op.examples = examples;
    op.expand = expand;
    return op;
  }();
  return kOp;
}

}  // namespace hone::ops

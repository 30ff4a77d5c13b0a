// RMS norm of a branch, added to the residual stream (Gemma's post-norms).
// SPDX-License-Identifier: Apache-2.0
#include "ops/registry.h"
#include "ops/support.h"

namespace hone::ops {
namespace {

TypesResult infer(Types operands, const Attributes& attributes) {
  const bool fits = operands.size() == 3 && operands[0] == operands[2] &&
                    rms_norm_op().infer(operands.first(2), attributes).ok();
  if (!fits)
    return ir::type_error("rms_norm_add", "(N, C), (C) and a residual (N, C), f32", operands);
  return std::vector<Type>{operands[0]};
}

void evaluate(const Evaluation& evaluation) {
  rms_norm_op().evaluate({evaluation.attributes, evaluation.operands.first(2), evaluation.results});
  for (std::size_t i = 0; i < evaluation.results[0].data.size(); ++i) {
    evaluation.results[0].data[i] += evaluation.operands[2]->data[i];
  }
}

Cost cost(Types operands, Types results, const Attributes&) {
  return elementwise_cost(operands, results, 5);
}

std::vector<std::int32_t> expand(std::span<const std::int32_t> operands, std::span<const Type>,
                                 const Attributes& attributes, const ir::Emit& emit) {
  return emit("add", {operands[2], emit("rms_norm", {operands[0], operands[1]}, attributes)[0]},
              {});
}

std::vector<Example> examples() {
  return {{{{tensor_type({3, 67})}, {tensor_type({67})}, {tensor_type({3, 67})}},
           {{"epsilon", 1e-5}},
           64}};
}

}  // namespace

const OpDescriptor& rms_norm_add_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "rms_norm_add";
    op.summary = "(N, C), (C), (N, C) -> (N, C): residual + rms_norm(x, weight)";
    op.infer = infer;
    op.evaluate = evaluate;
    op.cost = cost;
    op.examples = examples;
    op.row_wise = true;
    op.expand = expand;
    return op;
  }();
  return kOp;
}

}  // namespace hone::ops

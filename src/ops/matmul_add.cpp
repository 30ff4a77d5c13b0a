// A matmul that adds into the residual stream.
// SPDX-License-Identifier: Apache-2.0
#include "ops/registry.h"
#include "ops/support.h"

namespace hone::ops {
namespace {

TypesResult infer(Types operands, const Attributes&) {
  if (operands.size() == 3) {
    auto product = matmul_op().infer(operands.first(2), {});
    if (product && (*product)[0] == operands[2]) return product;
  }
  return ir::type_error("matmul_add", "(N, K), a weight (R, K) and a residual (N, R)", operands);
}

void evaluate(const Evaluation& evaluation) {
  matmul(*evaluation.operands[0], *evaluation.operands[1], evaluation.results[0].data);
  for (std::size_t i = 0; i < evaluation.results[0].data.size(); ++i) {
    evaluation.results[0].data[i] += evaluation.operands[2]->data[i];
  }
}

Cost cost(Types operands, Types results, const Attributes& attributes) {
  Cost cost = matmul_op().cost(operands.first(2), results, attributes);
  cost.bytes += static_cast<double>(operands[2].bytes());
  return cost;
}

std::vector<std::int32_t> expand(std::span<const std::int32_t> operands, std::span<const Type>,
                                 const Attributes&, const ir::Emit& emit) {
  return emit("add", {operands[2], emit("matmul", {operands[0], operands[1]}, {})[0]}, {});
}

std::vector<Example> examples() {
  return {{{{tensor_type({3, 64})}, {tensor_type({48, 64})}, {tensor_type({3, 48})}}, {}, 256}};
}

}  // namespace

const OpDescriptor& matmul_add_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "matmul_add";
    op.summary = "(N, K), (R, K), (N, R) -> (N, R): residual + x times the transposed weight";
    op.infer = infer;
    op.evaluate = evaluate;
    op.cost = cost;
    op.examples = examples;
    op.expand = expand;
    op.row_wise = true;
    return op;
  }();
  return kOp;
}

}  // namespace hone::ops

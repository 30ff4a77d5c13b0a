// Several weight matrices applied to the same rows in one step (queries, keys, values).
// SPDX-License-Identifier: Apache-2.0
#include "ops/registry.h"
#include "ops/support.h"

namespace hone::ops {
namespace {

TypesResult infer(Types operands, const Attributes&) {
  std::vector<Type> results;
  for (std::size_t i = 1; i < operands.size(); ++i) {
    const std::vector<Type> pair = {operands[0], operands[i]};
    auto result = matmul_op().infer(pair, {});
    if (!result) return result.error();
    results.push_back((*result)[0]);
  }
  if (results.size() < 2)
    return ir::type_error("matmul_group", "(N, K), two or more weights", operands);
  return results;
}

void evaluate(const Evaluation& evaluation) {
  for (std::size_t i = 0; i < evaluation.results.size(); ++i) {
    matmul(*evaluation.operands[0], *evaluation.operands[i + 1], evaluation.results[i].data);
  }
}

Cost cost(Types operands, Types results, const Attributes&) {
  double operations = 0;
  for (const Type& result : results) {
    operations += 2.0 * static_cast<double>(result.elements() * operands[0].columns());
  }
  return {operations, total_bytes(operands) + total_bytes(results)};
}

std::vector<std::int32_t> expand(std::span<const std::int32_t> operands, std::span<const Type>,
                                 const Attributes&, const ir::Emit& emit) {
  std::vector<std::int32_t> results;
  for (std::size_t i = 1; i < operands.size(); ++i) {
    results.push_back(emit("matmul", {operands[0], operands[i]}, {})[0]);
  }
  return results;
}

std::vector<Example> examples() {
  return {{{{tensor_type({3, 64})}, {tensor_type({48, 64})}, {tensor_type({17, 64})}}, {}, 256}};
}

}  // namespace

const OpDescriptor& matmul_group_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "matmul_group";
    op.summary = "(N, K), (R1, K), (R2, K) … -> (N, R1), (N, R2) …: one matmul each";
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

// The sum of all rows: the gradient of a row that all rows share.
// SPDX-License-Identifier: Apache-2.0
#include "ops/registry.h"
#include "ops/support.h"

namespace hone::ops {
namespace {

TypesResult infer(Types operands, const Attributes&) {
  if (operands.size() != 1 || !is_dense(operands[0])) {
    return ir::type_error("column_sum", "(N, C), f32", operands);
  }
  return std::vector<Type>{tensor_type({operands[0].columns()})};
}

void evaluate(const Evaluation& evaluation) {
  const std::vector<double>& x = evaluation.operands[0]->data;
  std::vector<double>& sum = evaluation.results[0].data;
  for (std::size_t i = 0; i < x.size(); ++i) sum[i % sum.size()] += x[i];
}

Cost cost(Types operands, Types results, const Attributes&) {
  return {static_cast<double>(operands[0].elements()),
          total_bytes(operands) + total_bytes(results)};
}

std::vector<Example> examples() {
  return {{{{tensor_type({3, 67})}}, {}, 8}, {{{tensor_type({131, 48})}}, {}, 256}};
}

}  // namespace

const OpDescriptor& column_sum_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "column_sum";
    op.summary = "(N, C) -> (C): the sum of all rows";
    op.infer = infer;
    op.evaluate = evaluate;
    op.cost = cost;
    op.examples = examples;
    return op;
  }();
  return kOp;
}

}  // namespace hone::ops

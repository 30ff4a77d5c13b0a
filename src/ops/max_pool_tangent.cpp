// Tangent of max_pool: the change of the first of the largest values under every window.
// SPDX-License-Identifier: Apache-2.0
#include "ops/registry.h"
#include "ops/support.h"
#include "ops/windows.h"

namespace hone::ops {
namespace {

TypesResult infer(Types operands, const Attributes& attributes) {
  const auto windows = pool_windows(attributes);
  const bool fits = windows && operands.size() == 2 && is_dense(operands[0]) &&
                    operands[1] == operands[0] && operands[0].shape.size() == 2 &&
                    operands[0].rows() % windows->pixels() == 0;
  if (!fits) return ir::type_error("max_pool_tangent", "(N H W, C) twice, f32", operands);
  const std::int64_t images = operands[0].rows() / windows->pixels();
  return std::vector<Type>{tensor_type({images * windows->positions(), operands[0].columns()})};
}

void evaluate(const Evaluation& evaluation) {
  const PoolWindows w = *pool_windows(evaluation.attributes);
  const std::vector<double>& x = evaluation.operands[0]->data;
  const std::int64_t channels = evaluation.operands[0]->type.columns();
  std::vector<double>& out = evaluation.results[0].data;
  for (std::int64_t i = 0; i < std::ssize(out); ++i) {
    out[static_cast<std::size_t>(i)] =
        evaluation.operands[1]->data[largest_under(w, x, channels, i)];
  }
}

Cost cost(Types operands, Types results, const Attributes&) {
  return {static_cast<double>(operands[0].elements()),
          total_bytes(operands) + total_bytes(results)};
}

std::vector<Example> examples() {
  return {{{{tensor_type({48, 5})}, {tensor_type({48, 5})}},
           {{"height", std::int64_t{4}},
            {"width", std::int64_t{6}},
            {"rows", std::int64_t{2}},
            {"columns", std::int64_t{3}}},
           0}};
}

}  // namespace

const OpDescriptor& max_pool_tangent_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "max_pool_tangent";
    op.summary =
        "(N H W, C), (N H W, C) -> (N OH OW, C): the tangent at the first of the largest x under "
        "each window";
    op.infer = infer;
    op.evaluate = evaluate;
    op.cost = cost;
    op.examples = examples;
    return op;
  }();
  return kOp;
}

}  // namespace hone::ops

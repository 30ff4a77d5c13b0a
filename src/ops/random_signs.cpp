// A direction of a weight, +1 and -1 by chance (Rademacher), named by seed, step, direction and
// tensor: made where it is read, never kept (directions.h of feedback makes the same numbers).
// SPDX-License-Identifier: Apache-2.0
#include "ops/registry.h"
#include "ops/signs_support.h"
#include "ops/support.h"

namespace hone::ops {
namespace {

// operand: key (4) i32. `tensor`: its number; `rows`, `columns`: its shape.
TypesResult infer(Types operands, const Attributes& attributes) {
  const bool fits = operands.size() == 1 && is_signs_key(operands[0]) &&
                    attributes.integer("rows") > 0 && attributes.integer("columns") > 0;
  if (!fits) return ir::type_error("random_signs", "(4) i32, rows and columns", operands);
  return std::vector<Type>{
      tensor_type({attributes.integer("rows"), attributes.integer("columns")})};
}

void evaluate(const Evaluation& evaluation) {
  const DirectionKey key =
      signs_key(evaluation.operands[0]->data, evaluation.attributes.integer("tensor"));
  auto& out = evaluation.results[0].data;
  for (std::size_t i = 0; i < out.size(); ++i) {
    out[i] = sign_of(key, static_cast<std::int64_t>(i));
  }
}

Cost cost(Types operands, Types results, const Attributes&) {
  return elementwise_cost(operands, results, 1);
}

std::vector<Example> examples() {
  return {{{signs_key_example()}, {{"tensor", 3}, {"rows", 5}, {"columns", 67}}, 0}};
}

}  // namespace

const OpDescriptor& random_signs_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "random_signs";
    op.summary = "key (4) i32 -> (rows, columns): +1 and -1 by chance, the same for the same key";
    op.infer = infer;
    op.evaluate = evaluate;
    op.cost = cost;
    op.examples = examples;
    return op;
  }();
  return kOp;
}

}  // namespace hone::ops

// Puts the keys and values of a batch into the cache.
// SPDX-License-Identifier: Apache-2.0
#include "ops/cache_support.h"
#include "ops/registry.h"
#include "ops/support.h"

namespace hone::ops {
namespace {

TypesResult infer(Types operands, const Attributes&) {
  const bool fits = operands.size() == 4 && operands[0].layout == Layout::kCache &&
                    operands[0].shape.size() == 2 && is_dense(operands[1]) &&
                    operands[1] == operands[2] && is_indices(operands[3]) &&
                    operands[1].shape == Shape{operands[3].shape[0], operands[0].elements()};
  if (!fits) {
    return ir::type_error("cache_write", "a cache (KV, D), keys and values (N, KV * D), slots (N)",
                          operands);
  }
  return std::vector<Type>{operands[0]};
}

void evaluate(const Evaluation& evaluation) {
  write_cache(*evaluation.operands[0], *evaluation.operands[1], *evaluation.operands[2],
              *evaluation.operands[3], evaluation.results[0]);
}

Cost cost(Types operands, Types, const Attributes&) {
  return {0, 2 * static_cast<double>(operands[1].bytes() + operands[2].bytes())};
}

// Tested through attention's examples: state has no values to compare by itself.
std::vector<Example> examples() { return {}; }

}  // namespace

const OpDescriptor& cache_write_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "cache_write";
    op.summary = "state, (N, KV * D), (N, KV * D), (N) i32 -> state: token n goes to slot slots[n]";
    op.infer = infer;
    op.evaluate = evaluate;
    op.cost = cost;
    op.examples = examples;
    op.effect = true;
    return op;
  }();
  return kOp;
}

}  // namespace hone::ops

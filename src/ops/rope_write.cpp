// Turns queries and keys by the rotary embedding and puts keys and values into the cache.
// SPDX-License-Identifier: Apache-2.0
#include "ops/cache_support.h"
#include "ops/registry.h"
#include "ops/support.h"

namespace hone::ops {
namespace {

// operands: queries, keys, values, table, cache, slots.
TypesResult infer(Types operands, const Attributes& attributes) {
  if (operands.size() == 6) {
    const std::vector<Type> query = {operands[0], operands[3]};
    const std::vector<Type> key = {operands[1], operands[3]};
    const std::vector<Type> write = {operands[4], operands[1], operands[2], operands[5]};
    if (rope_op().infer(query, attributes).ok() && rope_op().infer(key, attributes).ok() &&
        cache_write_op().infer(write, {}).ok()) {
      return std::vector<Type>{operands[0], operands[4]};
    }
  }
  return ir::type_error("rope_write", "queries, keys, values, a table, a cache, slots", operands);
}

void evaluate(const Evaluation& evaluation) {
  const auto& in = evaluation.operands;
  const Tensor* query[] = {in[0], in[3]};
  rope_op().evaluate({evaluation.attributes, query, evaluation.results.first(1)});
  const Tensor* key[] = {in[1], in[3]};
  Tensor turned{in[1]->type, {}};
  rope_op().evaluate({evaluation.attributes, key, std::span(&turned, 1)});
  write_cache(*in[4], turned, *in[2], *in[5], evaluation.results[1]);
}

Cost cost(Types operands, Types results, const Attributes&) {
  Cost cost = elementwise_cost(operands, results, 3);
  cost.operations += 3.0 * static_cast<double>(operands[1].elements());
  return cost;
}

std::vector<std::int32_t> expand(std::span<const std::int32_t> operands, std::span<const Type>,
                                 const Attributes& attributes, const ir::Emit& emit) {
  const auto query = emit("rope", {operands[0], operands[3]}, attributes)[0];
  const auto key = emit("rope", {operands[1], operands[3]}, attributes)[0];
  return {query, emit("cache_write", {operands[4], key, operands[2], operands[5]}, {})[0]};
}

// Tested through attention's cases in tests/ops.
std::vector<Example> examples() { return {}; }

}  // namespace

const OpDescriptor& rope_write_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "rope_write";
    op.summary = "q, k, v, table, state, slots -> q, state: rope on q and k, then cache_write";
    op.infer = infer;
    op.evaluate = evaluate;
    op.cost = cost;
    op.examples = examples;
    op.expand = expand;
    op.effect = true;
    return op;
  }();
  return kOp;
}

}  // namespace hone::ops

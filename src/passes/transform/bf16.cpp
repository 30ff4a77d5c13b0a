// Products of numbers rounded to bf16, forward and backward, with sums in f32: what a processor
// with bf16 arithmetic computes. It shows what that costs in accuracy; it saves no time here.
// SPDX-License-Identifier: Apache-2.0
#include <map>

#include "ops/registry.h"
#include "passes/pass.h"
#include "passes/transform/products.h"

namespace hone::passes {
namespace {

// Run it behind add_gradients. Weights in f32 alone take part, as in quantize_training.
Result<ir::Graph> run(const ir::Graph& graph) {
  ir::Rewriter rewriter(graph, ops::find_op);
  std::map<ir::ValueId, ir::ValueId> rounded;  // old to new, once for all readers
  const auto round = [&](ir::ValueId old_id) {
    const auto [found, fresh] = rounded.emplace(old_id, rewriter.map(old_id));
    if (!fresh || graph.producer(old_id).is("round")) return found->second;
    const auto made = rewriter.emit("round", {found->second});
    if (made.size() == 1) found->second = made[0];
    return found->second;
  };
  for (const ir::Operation& operation : graph.operations) {
    if (product_of(graph, operation, 2) == Product::kNone) {
      rewriter.copy(operation);
      continue;
    }
    const ir::ValueId left = round(operation.operands[0]);
    const ir::ValueId right = round(operation.operands[1]);
    const auto made = rewriter.emit(operation.op->name, {left, right}, operation.attributes);
    if (made.size() == 1) rewriter.replace(operation.results[0], made[0]);
  }
  return rewriter.finish();
}

}  // namespace

const Pass& bf16_pass() {
  static const Pass kPass{"bf16", "rounds what linear layers multiply to bf16",
                          PassKind::kTransform, 0, run};
  return kPass;
}

}  // namespace hone::passes

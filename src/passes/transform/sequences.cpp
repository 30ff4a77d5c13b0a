// Attention among the tokens of a batch in place of attention over the cache: what training runs.
// SPDX-License-Identifier: Apache-2.0
#include <map>
#include <set>

#include "ops/registry.h"
#include "passes/pass.h"

namespace hone::passes {
namespace {

// The meaning changes: every sequence of the batch begins at its first token here, whatever a cache
// held. The inputs slots, positions and pages stay, as callers bind inputs by place.
Result<ir::Graph> run(const ir::Graph& graph) {
  // What was written into a state, by the id of the state that the write gave back. Writes that are
  // fused with others already are left alone, with their caches.
  std::map<ir::ValueId, const ir::Operation*> writes;
  std::set<ir::ValueId> removed;
  for (const ir::Operation& operation : graph.operations) {
    if (!operation.is("cache_write")) continue;
    writes[operation.results[0]] = &operation;
    removed.insert(operation.operands[0]);
  }
  ir::Rewriter rewriter(graph, ops::find_op);
  for (const ir::Operation& operation : graph.operations) {
    if (operation.is("cache_write")) continue;
    if (operation.is("cache") && removed.contains(operation.results[0])) continue;
    const auto written =
        operation.is("attention") ? writes.find(operation.operands[1]) : writes.end();
    if (written == writes.end()) {
      rewriter.copy(operation);
      continue;
    }
    const std::vector<ir::ValueId>& write = written->second->operands;
    const auto made = rewriter.emit(
        "sequence_attention",
        {rewriter.map(operation.operands[0]), rewriter.map(write[1]), rewriter.map(write[2]),
         rewriter.map(operation.operands[3])},
        operation.attributes);
    if (!made.empty()) rewriter.replace(operation.results[0], made[0]);
  }
  return rewriter.finish();
}

}  // namespace

const Pass& sequences_pass() {
  static const Pass kPass{"sequences",
                          "attends among the batch's own tokens instead of over a cache",
                          PassKind::kTransform, 0, run};
  return kPass;
}

}  // namespace hone::passes

// Rotary embedding of queries and keys and the write into the cache become one step.
// SPDX-License-Identifier: Apache-2.0
#include <unordered_map>
#include <unordered_set>

#include "ops/registry.h"
#include "passes/pass.h"

namespace hone::passes {
namespace {

// Queries that are turned by the same table with the same attributes as the keys of a write.
const ir::Operation* query_of(const ir::Graph& graph, const std::vector<std::int32_t>& uses,
                              const ir::Operation& key,
                              const std::vector<const ir::Operation*>& ropes, ir::ValueId cache) {
  for (const ir::Operation* rope : ropes) {
    // The pair moves to the place of the write: nothing may read the queries before it.
    if (uses[static_cast<std::size_t>(rope->results[0])] != 1) continue;
    if (rope == &key || rope->operands[1] != key.operands[1] ||
        !(rope->attributes == key.attributes)) {
      continue;
    }
    // The query belongs to this write if an attention reads both.
    for (const ir::Operation& reader : graph.operations) {
      if (reader.is("attention") && reader.operands[0] == rope->results[0] &&
          reader.operands[1] == cache) {
        return rope;
      }
    }
  }
  return nullptr;
}

Result<ir::Graph> run(const ir::Graph& graph) {
  const auto uses = graph.use_counts();
  std::unordered_map<const ir::Operation*, const ir::Operation*> query_by_write;
  std::unordered_set<const ir::Operation*> fused;
  std::vector<const ir::Operation*> ropes;
  for (const ir::Operation& operation : graph.operations) {
    if (operation.is("rope")) ropes.push_back(&operation);
    if (!operation.is("cache_write")) continue;
    const ir::Operation& key = graph.producer(operation.operands[1]);
    if (key.is("rope") && !key.attributes.flag("inverse") &&
        uses[static_cast<std::size_t>(key.results[0])] == 1) {
      const ir::Operation* query = query_of(graph, uses, key, ropes, operation.results[0]);
      if (query != nullptr) {
        query_by_write[&operation] = query;
        fused.insert(query);
        fused.insert(&key);
      }
    }
    ropes.clear();
  }
  ir::Rewriter rewriter(graph, ops::find_op);
  for (const ir::Operation& operation : graph.operations) {
    if (fused.contains(&operation)) continue;
    const auto write = query_by_write.find(&operation);
    if (write == query_by_write.end()) {
      rewriter.copy(operation);
      continue;
    }
    const ir::Operation& query = *write->second;
    const ir::Operation& key = graph.producer(operation.operands[1]);
    const auto made =
        rewriter.emit("rope_write",
                      {rewriter.map(query.operands[0]), rewriter.map(key.operands[0]),
                       rewriter.map(operation.operands[2]), rewriter.map(key.operands[1]),
                       rewriter.map(operation.operands[0]), rewriter.map(operation.operands[3])},
                      key.attributes);
    if (made.size() == 2) {
      rewriter.replace(query.results[0], made[0]);
      rewriter.replace(operation.results[0], made[1]);
    }
  }
  return rewriter.finish();
}

}  // namespace

const Pass& fuse_rope_pass() {
  static const Pass kPass{"fuse_rope", "fuses rope of queries and keys with the cache write",
                          PassKind::kRewrite, 0, run};
  return kPass;
}

}  // namespace hone::passes

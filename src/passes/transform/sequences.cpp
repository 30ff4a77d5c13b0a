// Attention without a cache: a batch of whole sequences, each from its first token on.
// SPDX-License-Identifier: Apache-2.0
#include <unordered_map>

#include "ops/registry.h"
#include "passes/pass.h"

namespace hone::passes {
namespace {

// What a cache holds after a write: the batch's own keys and values, in the new graph.
struct Written {
  ir::ValueId keys, values;
};

// Whether the new form no longer reads an operand: states, slots, positions of queries, pages.
bool forgets(const ir::Operation& operation, std::size_t operand) {
  if (operation.is("cache_write")) return operand == 0 || operand == 3;
  if (operation.is("rope_write")) return operand == 4 || operand == 5;
  return operation.is("attention") && (operand == 1 || operand == 2 || operand == 4);
}

// Inputs that only forgotten operands read.
std::vector<bool> idle_inputs(const ir::Graph& graph) {
  std::vector<bool> read(graph.values.size(), false);
  std::vector<bool> forgotten(graph.values.size(), false);
  for (const ir::Operation& operation : graph.operations) {
    for (std::size_t i = 0; i < operation.operands.size(); ++i) {
      (forgets(operation, i) ? forgotten : read)[static_cast<std::size_t>(operation.operands[i])] =
          true;
    }
  }
  for (const ir::ValueId id : graph.outputs) read[static_cast<std::size_t>(id)] = true;
  for (std::size_t i = 0; i < read.size(); ++i) forgotten[i] = forgotten[i] && !read[i];
  return forgotten;
}

Error unknown_state(const ir::Operation& operation) {
  return Error{ErrorCode::kUnsupported,
               "attention reads a cache that this graph does not write",
               std::string(operation.op->name),
               "",
               "a cache_write or rope_write before every attention",
               "build the graph with the family's builder"};
}

// Values stay what they are where every sequence of the batch begins at position 0: then a token's
// whole context is in the batch.
Result<ir::Graph> run(const ir::Graph& graph) {
  ir::Rewriter rewriter(graph, ops::find_op);
  const std::vector<bool> idle = idle_inputs(graph);
  std::unordered_map<ir::ValueId, Written> states;
  for (const ir::Operation& operation : graph.operations) {
    const std::vector<ir::ValueId> in =
        operation.op->source ? std::vector<ir::ValueId>{} : rewriter.map(operation.operands);
    if (operation.is("cache")) continue;
    if (operation.is("input") && idle[static_cast<std::size_t>(operation.results[0])]) continue;
    if (operation.is("cache_write")) {
      states[operation.results[0]] = {in[1], in[2]};
    } else if (operation.is("rope_write")) {
      const auto queries = rewriter.emit("rope", {in[0], in[3]}, operation.attributes);
      const auto keys = rewriter.emit("rope", {in[1], in[3]}, operation.attributes);
      if (queries.empty() || keys.empty()) continue;
      rewriter.replace(operation.results[0], queries[0]);
      states[operation.results[1]] = {keys[0], in[2]};
    } else if (operation.is("attention")) {
      const auto state = states.find(operation.operands[1]);
      if (state == states.end()) return unknown_state(operation);
      const auto made = rewriter.emit("sequence_attention",
                                      {in[0], state->second.keys, state->second.values, in[3]},
                                      operation.attributes);
      if (!made.empty()) rewriter.replace(operation.results[0], made[0]);
    } else {
      rewriter.copy(operation);
    }
  }
  return rewriter.finish();
}

}  // namespace

const Pass& sequences_pass() {
  static const Pass kPass{
      "sequences",
      "attention among the batch's own tokens instead of over a cache: sequences from "
      "their first token on",
      PassKind::kTransform, 0, run};
  return kPass;
}

}  // namespace hone::passes

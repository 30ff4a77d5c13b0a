// Common subexpressions: two operations of the same op, operands and attributes become one.
// SPDX-License-Identifier: Apache-2.0
#include <functional>
#include <unordered_map>

#include "ops/registry.h"
#include "passes/pass.h"

namespace hone::passes {
namespace {

// Equal keys mean equal operations: op, operands after merging, attributes, result types.
std::uint64_t key_of(const ir::Operation& operation, const std::vector<ir::ValueId>& operands) {
  std::uint64_t key = std::hash<std::string_view>{}(operation.op->name);
  for (const ir::ValueId id : operands)
    key = key * 0x9E3779B97F4A7C15u + static_cast<std::uint64_t>(id + 1);
  return key ^ (key >> 31);
}

Result<ir::Graph> run(const ir::Graph& graph) {
  ir::Rewriter rewriter(graph, ops::find_op);
  std::unordered_multimap<std::uint64_t, const ir::Operation*> seen;
  for (const ir::Operation& operation : graph.operations) {
    if (operation.op->effect || operation.is("input")) {
      rewriter.copy(operation);
      continue;
    }
    const std::vector<ir::ValueId> operands = rewriter.map(operation.operands);
    const std::uint64_t key = key_of(operation, operands);
    const ir::Operation* twin = nullptr;
    const auto [first, last] = seen.equal_range(key);
    for (auto at = first; at != last && twin == nullptr; ++at) {
      const ir::Operation& other = *at->second;
      const bool same = other.op == operation.op && other.attributes == operation.attributes &&
                        rewriter.map(other.operands) == operands &&
                        graph.types(other.results) == graph.types(operation.results);
      if (same) twin = &other;
    }
    if (twin != nullptr) {
      for (std::size_t i = 0; i < operation.results.size(); ++i) {
        rewriter.replace(operation.results[i], rewriter.map(twin->results[i]));
      }
    } else {
      rewriter.copy(operation);
      seen.emplace(key, &operation);
    }
  }
  return rewriter.finish();
}

}  // namespace

const Pass& cse_pass() {
  static const Pass kPass{"cse", "merges equal operations", PassKind::kRewrite, 0, run};
  return kPass;
}

}  // namespace hone::passes

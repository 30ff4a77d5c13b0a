// SPDX-License-Identifier: Apache-2.0
#include "passes/transform/update.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "ops/registry.h"
#include "passes/transform/gradient.h"

namespace hone::passes {

Result<ir::Graph> add_updates(const ir::Graph& graph) {
  // By the operation after which it stands: parameter and gradient.
  std::multimap<std::int32_t, std::pair<ir::ValueId, ir::ValueId>> updates;
  std::map<ir::ValueId, std::int32_t> last_reader;
  for (std::size_t i = 0; i < graph.operations.size(); ++i) {
    for (const ir::ValueId id : graph.operations[i].operands) {
      last_reader[id] = static_cast<std::int32_t>(i);
    }
  }
  std::vector<bool> is_update(graph.outputs.size(), false);
  for (const ir::Operation& operation : graph.operations) {
    if (!operation.is("parameter")) continue;
    const std::string name = gradient_name(operation.attributes.text("name"));
    for (std::size_t i = 0; i < graph.outputs.size(); ++i) {
      if (graph.output_names[i] != name) continue;
      if (is_update[i]) {
        return Error{ErrorCode::kInternal,
                     fmt::format("the parameter of '{}' stands in the graph twice", name),
                     fmt::format("graph '{}'", graph.name),
                     "",
                     "cse before updates",
                     ""};
      }
      const ir::ValueId parameter = operation.results[0];
      const std::int32_t made = graph.values[static_cast<std::size_t>(graph.outputs[i])].producer;
      updates.emplace(std::max(made, last_reader[parameter]),
                      std::pair(parameter, graph.outputs[i]));
      is_update[i] = true;
    }
  }
  ir::Rewriter rewriter(graph, ops::find_op);
  for (std::size_t i = 0; i < graph.operations.size(); ++i) {
    rewriter.copy(graph.operations[i]);
    const auto [first, last] = updates.equal_range(static_cast<std::int32_t>(i));
    for (auto each = first; each != last; ++each) {
      const auto [parameter, gradient] = each->second;
      rewriter.emit("update", {rewriter.map(parameter), rewriter.map(gradient)},
                    {{"name", std::string(graph.producer(parameter).attributes.text("name"))}});
    }
  }
  auto result = rewriter.finish();
  if (!result) return result;
  ir::Graph out = *std::move(result);
  for (std::size_t i = is_update.size(); i-- > 0;) {
    if (!is_update[i]) continue;
    out.outputs.erase(out.outputs.begin() + static_cast<std::ptrdiff_t>(i));
    out.output_names.erase(out.output_names.begin() + static_cast<std::ptrdiff_t>(i));
  }
  return out;
}

}  // namespace hone::passes

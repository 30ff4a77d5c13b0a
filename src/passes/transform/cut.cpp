// SPDX-License-Identifier: Apache-2.0
#include "passes/transform/cut.h"

#include <fmt/format.h>

#include "ops/registry.h"
#include "passes/pass.h"

namespace hone::passes {

Result<Halves> cut(const ir::Graph& graph, ir::ValueId at, const std::string& name) {
  if (at < 0 || at >= std::ssize(graph.values)) {
    return Error{ErrorCode::kUnsupported,
                 "the graph has no value at which it could be cut",
                 fmt::format("graph '{}'", graph.name),
                 fmt::format("value {}", at),
                 "a value of the graph",
                 ""};
  }
  const Pass& unused = *find_pass("dce");
  Halves halves;
  ir::Graph below = graph;
  below.outputs = {at};
  below.output_names = {name};
  auto lower = unused.run(below);
  if (!lower) return lower.error();
  halves.below = *std::move(lower);

  ir::Rewriter rewriter(graph, ops::find_op);
  for (const ir::Operation& operation : graph.operations) {
    rewriter.copy(operation);
    for (const ir::ValueId id : operation.results) {
      if (id != at) continue;
      rewriter.replace(
          at, rewriter.emit_source(ops::find_op("input"), graph.type(at), {{"name", name}}));
    }
  }
  auto whole = rewriter.finish();
  if (!whole) return whole.error();
  auto upper = unused.run(*whole);
  if (!upper) return upper.error();
  halves.above = *std::move(upper);
  return halves;
}

}  // namespace hone::passes

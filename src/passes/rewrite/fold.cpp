// Folds constants, and operations that change nothing.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "ir/interpret.h"
#include "ops/registry.h"
#include "passes/pass.h"

namespace hone::passes {
namespace {

// Results beyond this many elements stay computed: constants stand in the graph's text.
constexpr std::int64_t kMostElements = 4096;

bool is_constant(const ir::Graph& graph, ir::ValueId id) {
  return graph.producer(id).is("constant");
}

// An operation that gives back its operand: scale by one, columns of everything, reshape to itself.
bool is_identity(const ir::Graph& graph, const ir::Operation& operation) {
  if (operation.operands.empty() || operation.results.size() != 1) return false;
  // An output must be computed: a source cannot take its place.
  if (graph.producer(operation.operands[0]).op->source &&
      std::ranges::find(graph.outputs, operation.results[0]) != graph.outputs.end()) {
    return false;
  }
  if (graph.type(operation.results[0]) != graph.type(operation.operands[0])) return false;
  if (operation.is("scale")) return operation.attributes.number("factor", 1) == 1.0;
  return operation.is("columns") || operation.is("reshape");
}

bool can_compute(const ir::Graph& graph, const ir::Operation& operation) {
  if (operation.op->evaluate == nullptr || operation.op->effect || operation.operands.empty() ||
      operation.results.size() != 1) {
    return false;
  }
  for (const ir::ValueId id : operation.operands) {
    if (!is_constant(graph, id)) return false;
  }
  const ir::Type& type = graph.type(operation.results[0]);
  return type.dtype == DType::kF32 && type.layout == ir::Layout::kRowMajor &&
         type.elements() <= kMostElements;
}

ir::Tensor tensor_of(const ir::Graph& graph, ir::ValueId id) {
  const auto values = graph.producer(id).attributes.numbers("values");
  return {graph.type(id), std::vector<double>(values.begin(), values.end())};
}

Result<ir::Graph> run_once(const ir::Graph& graph) {
  ir::Rewriter rewriter(graph, ops::find_op);
  for (const ir::Operation& operation : graph.operations) {
    if (is_identity(graph, operation)) {
      rewriter.replace(operation.results[0], rewriter.map(operation.operands[0]));
    } else if (can_compute(graph, operation)) {
      std::vector<ir::Tensor> tensors;
      std::vector<const ir::Tensor*> operands;
      for (const ir::ValueId id : operation.operands) tensors.push_back(tensor_of(graph, id));
      for (const ir::Tensor& tensor : tensors) operands.push_back(&tensor);
      auto results = ir::evaluate(*operation.op, operands, graph.types(operation.results),
                                  operation.attributes);
      ir::Attributes attributes{{"shape", results[0].type.shape}, {"values", results[0].data}};
      const auto made = rewriter.emit("constant", {}, std::move(attributes));
      if (made.size() == 1) rewriter.replace(operation.results[0], made[0]);
    } else if (operation.is("reshape") && graph.producer(operation.operands[0]).is("reshape")) {
      // A reshape of a reshape needs only the second.
      const ir::ValueId origin = graph.producer(operation.operands[0]).operands[0];
      const auto made = rewriter.emit("reshape", {rewriter.map(origin)}, operation.attributes);
      if (made.size() == 1) rewriter.replace(operation.results[0], made[0]);
    } else {
      rewriter.copy(operation);
    }
  }
  return rewriter.finish();
}

// One fold makes the next possible; each round removes an operation or is the last.
Result<ir::Graph> run(const ir::Graph& graph) {
  Result<ir::Graph> current = run_once(graph);
  for (std::uint64_t before = ir::structural_hash(graph); current.ok();) {
    const std::uint64_t now = ir::structural_hash(*current);
    if (now == before) break;
    before = now;
    current = run_once(*current);
  }
  return current;
}

}  // namespace

const Pass& fold_pass() {
  // The reference computes in double precision what a kernel would have in single.
  static const Pass kPass{"fold", "computes constants, drops operations that change nothing",
                          PassKind::kRewrite, 64, run};
  return kPass;
}

}  // namespace hone::passes

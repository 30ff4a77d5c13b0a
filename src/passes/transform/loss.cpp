// SPDX-License-Identifier: Apache-2.0
#include "passes/transform/loss.h"

#include <algorithm>

#include "ops/registry.h"

namespace hone::passes {
namespace {

Error no_logits(const ir::Graph& graph) {
  return Error{ErrorCode::kUnsupported,
               "the graph has no logits that a loss could replace",
               "graph '" + graph.name + "'",
               "",
               "an output 'logits' made by a matmul",
               ""};
}

}  // namespace

Result<ir::Graph> add_loss(const ir::Graph& graph, LossForm form) {
  const auto named = std::ranges::find(graph.output_names, "logits");
  if (named == graph.output_names.end()) return no_logits(graph);
  const auto index = static_cast<std::size_t>(named - graph.output_names.begin());
  const ir::Operation* product = &graph.producer(graph.outputs[index]);
  double cap = 0;
  if (product->is("tanh_cap")) {
    cap = product->attributes.number("cap");
    product = &graph.producer(product->operands[0]);
  }
  if (!product->is("matmul")) return no_logits(graph);

  ir::Rewriter rewriter(graph, ops::find_op);
  for (const ir::Operation& operation : graph.operations) rewriter.copy(operation);
  const ir::Shape rows = {graph.type(product->results[0]).rows()};
  const auto input = [&](const char* name, DType dtype) {
    return rewriter.emit_source(ops::find_op("input"), ir::tensor_type(rows, dtype),
                                {{"name", std::string(name)}});
  };
  const ir::ValueId targets = input("targets", DType::kI32);
  const ir::ValueId weights = input("weights", DType::kF32);
  ir::Attributes attributes;
  if (cap > 0) attributes.set("cap", cap);
  if (form == LossForm::kWeightGradient) attributes.set("weight_gradient", true);
  if (form == LossForm::kLosses) attributes.set("losses_only", true);
  const auto made = rewriter.emit(
      "output_loss",
      {rewriter.map(product->operands[0]), rewriter.map(product->operands[1]), targets, weights},
      std::move(attributes));
  if (!made.empty()) rewriter.replace(graph.outputs[index], made[0]);
  auto result = rewriter.finish();
  if (result) result->output_names[index] = "loss";
  return result;
}

}  // namespace hone::passes

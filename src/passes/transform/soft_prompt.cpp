// SPDX-License-Identifier: Apache-2.0
#include "passes/transform/soft_prompt.h"

#include <fmt/format.h>

#include "ops/registry.h"
#include "passes/pass.h"

namespace hone::passes {
namespace {

bool is_input(const ir::Operation& operation, std::string_view name) {
  return operation.is("input") && operation.attributes.text("name") == name;
}

// The operation whose result the layers read: the embedding, or the factor behind it.
Result<const ir::Operation*> embedding_of(const ir::Graph& graph) {
  const ir::Operation* embedding = nullptr;
  for (const ir::Operation& operation : graph.operations) {
    if (operation.is("gather") && is_input(graph.producer(operation.operands[1]), "tokens")) {
      embedding = &operation;
      break;
    }
  }
  if (embedding == nullptr) {
    return Error{ErrorCode::kUnsupported,
                 "the graph embeds no tokens that virtual ones could stand in front of",
                 "graph '" + graph.name + "'",
                 "",
                 "a gather by the input 'tokens'",
                 ""};
  }
  const ir::Operation* reader = nullptr;
  int readers = 0;
  for (const ir::Operation& operation : graph.operations) {
    for (const ir::ValueId operand : operation.operands) {
      if (operand != embedding->results[0]) continue;
      reader = &operation;
      ++readers;
    }
  }
  return readers == 1 && reader->is("scale") ? reader : embedding;
}

// A graph that has one, or that embeds no tokens, stays as it is.
Result<ir::Graph> run(const ir::Graph& graph) {
  for (const ir::Operation& operation : graph.operations) {
    const bool present =
        operation.is("parameter") && operation.attributes.text("name") == kSoftPromptName;
    if (present) return graph;
  }
  return embedding_of(graph) ? add_soft_prompt(graph, {}) : graph;
}

}  // namespace

Result<ir::Graph> add_soft_prompt(const ir::Graph& graph, const SoftPromptOptions& options) {
  if (options.virtual_tokens < 1) {
    return Error{ErrorCode::kInvalidArgument,
                 "a soft prompt has no virtual tokens",
                 "",
                 fmt::format("{}", options.virtual_tokens),
                 "1 or more",
                 ""};
  }
  const auto embedding = embedding_of(graph);
  if (!embedding) return embedding.error();
  ir::Rewriter rewriter(graph, ops::find_op);
  ir::ValueId rows = -1;
  for (const ir::Operation& operation : graph.operations) {
    rewriter.copy(operation);
    if (is_input(operation, options.rows)) rows = rewriter.map(operation.results[0]);
    if (&operation != *embedding) continue;
    const ir::ValueId embedded = operation.results[0];
    const ir::Type& type = graph.type(embedded);
    if (rows < 0) {
      rows =
          rewriter.emit_source(ops::find_op("input"), ir::tensor_type({type.rows()}, DType::kI32),
                               {{"name", options.rows}});
    }
    ir::Attributes attributes{{"name", std::string(kSoftPromptName)}};
    if (options.writable) attributes.set("writable", true);
    const ir::ValueId table = rewriter.emit_source(
        ops::find_op("parameter"), ir::tensor_type({options.virtual_tokens, type.columns()}),
        std::move(attributes));
    const auto made = rewriter.emit("replace_rows", {rewriter.map(embedded), table, rows});
    if (!made.empty()) rewriter.replace(embedded, made[0]);
  }
  return rewriter.finish();
}

Result<double> embedding_factor(const ir::Graph& graph) {
  const auto embedding = embedding_of(graph);
  if (!embedding) return embedding.error();
  return (*embedding)->is("scale") ? (*embedding)->attributes.number("factor") : 1.0;
}

const Pass& soft_prompt_pass() {
  static const Pass kPass{"soft_prompt",
                          "puts 16 virtual tokens in place of the first rows of every sequence",
                          PassKind::kTransform, 0, run};
  return kPass;
}

}  // namespace hone::passes

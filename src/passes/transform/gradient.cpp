// Reverse accumulation (Linnainmaa 1970; Griewank & Walther 2008, section 3.2): operations
// backwards, each by the rule in its own descriptor.
// SPDX-License-Identifier: Apache-2.0
#include "passes/transform/gradient.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "ops/registry.h"

namespace hone::passes {
namespace {

using ir::kNoGradient;
using ir::Operation;
using ir::ValueId;

std::size_t at(ValueId id) { return static_cast<std::size_t>(id); }

bool is_named_source(const Operation& operation) {
  return operation.is("parameter") || operation.is("input");
}

bool is_among(const Operation& operation, const std::vector<std::string>& names) {
  return is_named_source(operation) &&
         std::ranges::count(names, operation.attributes.text("name")) > 0;
}

void copy_marked(ir::Rewriter& rewriter, const ir::Graph& graph,
                 const std::vector<std::string>& names) {
  for (const Operation& operation : graph.operations) {
    if (!operation.is("parameter") || !is_among(operation, names)) {
      rewriter.copy(operation);
      continue;
    }
    ir::Attributes attributes = operation.attributes;
    attributes.set("writable", true);
    const ValueId id = operation.results[0];
    rewriter.replace(id, rewriter.emit_source(operation.op, graph.type(id), attributes));
  }
}

class Backward {
 public:
  Backward(const ir::Graph& graph, const GradientOptions& options)
      : graph_(graph),
        options_(options),
        rewriter_(graph, ops::find_op),
        needed_(graph.values.size(), 0),
        gradients_(graph.values.size(), kNoGradient),
        emit_(
            [this](std::string_view op, std::vector<ValueId> operands, ir::Attributes attributes) {
              return rewriter_.emit(op, std::move(operands), std::move(attributes));
            }) {}

  Result<ir::Graph> run() {
    copy_marked(rewriter_, graph_, options_.wanted);
    HONE_RETURN_IF_ERROR(seed());
    mark_needed();
    for (std::size_t i = graph_.operations.size(); i-- > 0;) {
      HONE_RETURN_IF_ERROR(differentiate(graph_.operations[i]));
    }
    auto result = rewriter_.finish();
    if (!result) return result.error().in("the gradient pass");
    for (const std::string& name : options_.wanted) {
      const auto found = totals_.find(name);
      if (found == totals_.end()) {
        return Error{ErrorCode::kNotFound,
                     fmt::format("the loss does not depend on '{}'", name),
                     fmt::format("graph '{}'", graph_.name),
                     "",
                     "a parameter or input on the way to the loss",
                     ""};
      }
      result->outputs.push_back(found->second);
      result->output_names.push_back(gradient_name(name));
    }
    return result;
  }

 private:
  Status seed() {
    for (std::size_t i = 0; i < graph_.outputs.size(); ++i) {
      if (graph_.output_names[i] != options_.loss) continue;
      const ir::Shape& shape = graph_.type(graph_.outputs[i]).shape;
      const auto count = static_cast<std::size_t>(graph_.type(graph_.outputs[i]).elements());
      const auto ones = rewriter_.emit(
          "constant", {}, {{"shape", ir::Integers(shape)}, {"values", ir::Numbers(count, 1.0)}});
      if (ones.size() == 1) gradients_[at(graph_.outputs[i])] = ones[0];
      return {};
    }
    return Error{ErrorCode::kNotFound,
                 fmt::format("the graph has no output '{}' to differentiate", options_.loss),
                 fmt::format("graph '{}'", graph_.name),
                 "",
                 "",
                 ""};
  }

  // Values on a way from something wanted: only they need gradients.
  void mark_needed() {
    for (const Operation& operation : graph_.operations) {
      bool needed = is_among(operation, options_.wanted);
      for (const ValueId id : operation.operands) needed = needed || needed_[at(id)] != 0;
      for (const ValueId id : operation.results) needed_[at(id)] = needed ? 1 : 0;
    }
  }

  void add_term(ValueId& total, ValueId term) {
    if (total == kNoGradient) {
      total = term;
      return;
    }
    const auto sum = rewriter_.emit("add", {total, term});
    if (sum.size() == 1) total = sum[0];
  }

  Status differentiate(const Operation& operation) {
    std::vector<ValueId> incoming;
    bool any = false;
    for (const ValueId id : operation.results) {
      incoming.push_back(gradients_[at(id)]);
      any = any || (incoming.back() != kNoGradient && needed_[at(id)] != 0);
    }
    if (!any) return {};
    if (operation.op->source) {
      const auto [total, fresh] =
          totals_.emplace(std::string(operation.attributes.text("name")), kNoGradient);
      add_term(total->second, incoming[0]);
      return {};
    }
    if (operation.op->gradient == nullptr) {
      return Error{ErrorCode::kUnsupported,
                   fmt::format("the op '{}' has no gradient", operation.op->name),
                   fmt::format("graph '{}'", graph_.name),
                   "",
                   "operations that can be differentiated between the loss and what is trained",
                   ""};
    }
    std::vector<std::uint8_t> wanted;
    for (const ValueId id : operation.operands) wanted.push_back(needed_[at(id)]);
    const std::vector<ValueId> operands = rewriter_.map(operation.operands);
    const std::vector<ValueId> results = rewriter_.map(operation.results);
    const std::vector<ir::Type> types = graph_.types(operation.operands);
    const std::vector<ValueId> outgoing = operation.op->gradient(
        {operands, types, results, incoming, wanted, operation.attributes, emit_});
    for (std::size_t i = 0; i < outgoing.size() && i < wanted.size(); ++i) {
      if (wanted[i] == 0 || outgoing[i] == kNoGradient) continue;
      add_term(gradients_[at(operation.operands[i])], outgoing[i]);
    }
    return {};
  }

  const ir::Graph& graph_;
  const GradientOptions& options_;
  ir::Rewriter rewriter_;
  std::vector<std::uint8_t> needed_;  // by old id
  std::vector<ValueId> gradients_;    // by old id; new ids
  std::map<std::string, ValueId, std::less<>> totals_;
  ir::Emit emit_;
};

}  // namespace

std::string gradient_name(std::string_view of) { return fmt::format("gradient of {}", of); }

Result<ir::Graph> mark_writable(const ir::Graph& graph, const std::vector<std::string>& names) {
  ir::Rewriter rewriter(graph, ops::find_op);
  copy_marked(rewriter, graph, names);
  return rewriter.finish();
}

Result<ir::Graph> add_gradients(const ir::Graph& graph, const GradientOptions& options) {
  return Backward(graph, options).run();
}

}  // namespace hone::passes

// SPDX-License-Identifier: Apache-2.0
#include "passes/transform/tangent.h"

#include <fmt/format.h>

#include <algorithm>

#include "ops/registry.h"

namespace hone::passes {
namespace {

using ir::kNoTangent;
using ir::Operation;
using ir::ValueId;

std::size_t at(ValueId id) { return static_cast<std::size_t>(id); }

class Forward {
 public:
  Forward(const ir::Graph& graph, const TangentOptions& options)
      : graph_(graph),
        options_(options),
        rewriter_(graph, ops::find_op),
        tangents_(static_cast<std::size_t>(options.directions),
                  std::vector<ValueId>(graph.values.size(), kNoTangent)),
        emit_(
            [this](std::string_view op, std::vector<ValueId> operands, ir::Attributes attributes) {
              return rewriter_.emit(op, std::move(operands), std::move(attributes));
            }) {}

  Result<ir::Graph> run() {
    for (const Operation& operation : graph_.operations) {
      if (operation.is("parameter") && changes(operation)) {
        start(operation);
        continue;
      }
      rewriter_.copy(operation);
      for (auto& tangents : tangents_) HONE_RETURN_IF_ERROR(differentiate(operation, tangents));
    }
    auto result = rewriter_.finish();
    if (!result) return result.error().in("the tangent pass");
    HONE_RETURN_IF_ERROR(add_outputs(*result));
    return result;
  }

 private:
  // Its place among those that change; none: their number.
  std::size_t place_of(const Operation& operation) const {
    const auto found = std::ranges::find(options_.changed, operation.attributes.text("name"));
    return static_cast<std::size_t>(found - options_.changed.begin());
  }
  bool changes(const Operation& operation) const {
    return place_of(operation) < options_.changed.size();
  }

  ValueId signs_key(int direction) {
    const auto k = static_cast<std::size_t>(direction);
    while (keys_.size() <= k) {
      keys_.push_back(rewriter_.emit_source(
          ops::find_op("parameter"), ir::tensor_type({4}, DType::kI32),
          {{"name", signs_key_name(static_cast<int>(keys_.size()))}, {"writable", true}}));
    }
    return keys_[k];
  }

  void start(const Operation& operation) {
    const ValueId id = operation.results[0];
    ir::Attributes attributes = operation.attributes;
    attributes.set("writable", true);
    rewriter_.replace(id, rewriter_.emit_source(operation.op, graph_.type(id), attributes));
    const std::size_t place = place_of(operation);
    const std::int64_t number = place < options_.drawn.size() ? options_.drawn[place] : -1;
    const ir::Type& type = graph_.type(id);
    for (int k = 0; k < options_.directions; ++k) {
      if (number >= 0) {
        tangents_[static_cast<std::size_t>(k)][at(id)] =
            emit_("random_signs", {signs_key(k)},
                  {{"tensor", number}, {"rows", type.rows()}, {"columns", type.columns()}})[0];
        continue;
      }
      attributes.set("name", direction_name(operation.attributes.text("name"), k));
      tangents_[static_cast<std::size_t>(k)][at(id)] =
          rewriter_.emit_source(operation.op, graph_.type(id), attributes);
    }
  }

  Status differentiate(const Operation& operation, std::vector<ValueId>& tangents) {
    std::vector<ValueId> incoming;
    for (const ValueId id : operation.operands) incoming.push_back(tangents[at(id)]);
    if (std::ranges::all_of(incoming, [](ValueId id) { return id == kNoTangent; })) return {};
    if (operation.op->tangent == nullptr) {
      return Error{ErrorCode::kUnsupported,
                   fmt::format("the op '{}' has no forward derivative", operation.op->name),
                   fmt::format("graph '{}'", graph_.name),
                   "",
                   "operations that have one between what changes and the loss",
                   ""};
    }
    const std::vector<ValueId> operands = rewriter_.map(operation.operands);
    const std::vector<ValueId> results = rewriter_.map(operation.results);
    const std::vector<ir::Type> types = graph_.types(operation.operands);
    const std::vector<ValueId> outgoing =
        operation.op->tangent({operands, types, results, incoming, operation.attributes, emit_});
    for (std::size_t i = 0; i < outgoing.size() && i < operation.results.size(); ++i) {
      tangents[at(operation.results[i])] = outgoing[i];
    }
    return {};
  }

  Status add_outputs(ir::Graph& graph) const {
    const auto named = std::ranges::find(graph_.output_names, options_.loss);
    const auto index = static_cast<std::size_t>(named - graph_.output_names.begin());
    for (std::size_t k = 0; k < tangents_.size(); ++k) {
      const ValueId id =
          named == graph_.output_names.end() ? kNoTangent : tangents_[k][at(graph_.outputs[index])];
      if (id == kNoTangent) {
        return Error{ErrorCode::kNotFound,
                     fmt::format("no output '{}' depends on what changes", options_.loss),
                     fmt::format("graph '{}'", graph_.name),
                     fmt::format("{} parameters that change", options_.changed.size()),
                     "a parameter on the way to it",
                     ""};
      }
      graph.outputs.push_back(id);
      graph.output_names.push_back(fmt::format("{} along {}", options_.loss, k));
    }
    return {};
  }

  const ir::Graph& graph_;
  const TangentOptions& options_;
  ir::Rewriter rewriter_;
  std::vector<std::vector<ValueId>> tangents_;  // of each direction, by old id; new ids
  std::vector<ValueId> keys_;                   // of the directions' signs
  ir::Emit emit_;
};

}  // namespace

std::string direction_name(std::string_view of, int direction) {
  return fmt::format("direction {} of {}", direction, of);
}

std::string signs_key_name(int direction) {
  return fmt::format("signs of direction {}", direction);
}

Result<ir::Graph> add_tangents(const ir::Graph& graph, const TangentOptions& options) {
  return Forward(graph, options).run();
}

}  // namespace hone::passes

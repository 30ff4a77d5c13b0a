// SPDX-License-Identifier: Apache-2.0
#include "ir/interpret.h"

#include <fmt/format.h>

namespace hone::ir {

std::vector<Tensor> evaluate(const OpDescriptor& op, std::span<const Tensor* const> operands,
                             std::span<const Type> result_types, const Attributes& attributes) {
  std::vector<Tensor> results;
  for (const Type& type : result_types) {
    // A state's size is its owner's affair: it starts as its operand is.
    const std::int64_t size = type.layout == Layout::kCache ? 0 : type.elements();
    results.push_back({type, std::vector<double>(static_cast<std::size_t>(size), 0.0)});
  }
  op.evaluate(Evaluation{attributes, operands, results});
  return results;
}

Result<std::vector<Tensor>> interpret(const Graph& graph, const Provide& provide) {
  std::vector<Tensor> values(graph.values.size());
  for (const Operation& operation : graph.operations) {
    if (operation.op->source) {
      for (const ValueId id : operation.results) {
        auto tensor = provide(operation, graph.type(id));
        if (!tensor) return tensor.error();
        values[static_cast<std::size_t>(id)] = std::move(*tensor);
      }
      continue;
    }
    if (operation.op->evaluate == nullptr) {
      return Error{ErrorCode::kInternal,
                   fmt::format("'{}' has no reference to run", operation.op->name),
                   "",
                   "",
                   "",
                   ""};
    }
    std::vector<const Tensor*> operands;
    for (const ValueId id : operation.operands) {
      operands.push_back(&values[static_cast<std::size_t>(id)]);
    }
    auto results =
        evaluate(*operation.op, operands, graph.types(operation.results), operation.attributes);
    for (std::size_t i = 0; i < results.size(); ++i) {
      values[static_cast<std::size_t>(operation.results[i])] = std::move(results[i]);
    }
  }
  std::vector<Tensor> outputs;
  for (const ValueId id : graph.outputs) outputs.push_back(values[static_cast<std::size_t>(id)]);
  return outputs;
}

}  // namespace hone::ir

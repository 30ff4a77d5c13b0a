// The graph: operations in an order in which every value is made before it is used.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "ir/op.h"

namespace hone::ir {

using ValueId = std::int32_t;

struct Operation {
  const OpDescriptor* op = nullptr;
  std::vector<ValueId> operands;
  std::vector<ValueId> results;
  Attributes attributes;

  bool is(std::string_view name) const { return op->name == name; }
};

struct Value {
  Type type;
  std::int32_t producer = -1;  // index into Graph::operations
};

// Values are numbered in the order of their making. What leaves the graph is listed in `outputs`.
struct Graph {
  std::string name;
  std::vector<Operation> operations;
  std::vector<Value> values;
  std::vector<ValueId> outputs;
  std::vector<std::string> output_names;

  const Type& type(ValueId id) const { return values[static_cast<std::size_t>(id)].type; }
  const Operation& producer(ValueId id) const {
    return operations[static_cast<std::size_t>(values[static_cast<std::size_t>(id)].producer)];
  }
  std::vector<Type> types(std::span<const ValueId> ids) const;
  // How often each value is used, outputs included.
  std::vector<std::int32_t> use_counts() const;
};

// Builds a graph op by op. The first type error is kept and returned by `finish`; until then
// operations on a failed value are skipped, so that a model file reads without checks on each line.
class Builder {
 public:
  Builder(std::string name, OpLookup lookup);

  std::vector<ValueId> emit_all(std::string_view op, std::vector<ValueId> operands,
                                Attributes attributes = {});
  // The single result of an op that has one.
  ValueId emit(std::string_view op, std::vector<ValueId> operands, Attributes attributes = {});
  // Source ops carry their type in the call: an input, a parameter, a state.
  ValueId source(std::string_view op, Type type, Attributes attributes);
  void output(ValueId id, std::string name);
  const Type& type(ValueId id) const { return graph_.type(id); }

  Result<Graph> finish();

 private:
  ValueId add_value(Type type);
  Graph graph_;
  OpLookup lookup_;
  Status status_;
};

// Copies a graph operation by operation while changing it: how every pass is written.
class Rewriter {
 public:
  Rewriter(const Graph& source, OpLookup lookup);

  // The new id of a value of the source graph.
  ValueId map(ValueId old_id) const { return map_[static_cast<std::size_t>(old_id)]; }
  std::vector<ValueId> map(std::span<const ValueId> old_ids) const;
  // Copies an operation as it is, operands mapped.
  void copy(const Operation& operation);
  // Makes an operation on new ids; types come from the op's rule. Returns the new results; empty
  // where the rule refuses, with the reason kept for `finish`.
  std::vector<ValueId> emit(std::string_view op, std::vector<ValueId> operands,
                            Attributes attributes = {});
  ValueId emit_source(const OpDescriptor* op, Type type, Attributes attributes);
  // From here on the old value stands for the new one.
  void replace(ValueId old_id, ValueId new_id) { map_[static_cast<std::size_t>(old_id)] = new_id; }
  const Graph& result() const { return graph_; }

  Result<Graph> finish();

 private:
  const Graph& source_;
  OpLookup lookup_;
  Graph graph_;
  std::vector<ValueId> map_;
  Status status_;
};

// Checks that the graph keeps its promises: ids in range and made before use, types as the ops'
// rules give them, effects used in order (each state value has one writer at most).
Status verify(const Graph& graph);

// Equal for graphs of the same structure, whatever their name: the key of the program cache.
std::uint64_t structural_hash(const Graph& graph);

}  // namespace hone::ir

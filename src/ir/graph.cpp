// SPDX-License-Identifier: Apache-2.0
#include "ir/graph.h"

#include <fmt/format.h>

#include <bit>

namespace hone::ir {
namespace {

Error unknown_op(std::string_view name) {
  return Error{
      ErrorCode::kNotFound, fmt::format("there is no op called '{}'", name), "", "", "", ""};
}

// Infers, appends the operation and its values. The one place where operations are made.
Result<std::vector<ValueId>> append(Graph& graph, const OpDescriptor* op,
                                    std::vector<ValueId> operands, Attributes attributes,
                                    std::vector<Type> types) {
  Operation operation{op, std::move(operands), {}, std::move(attributes)};
  const auto index = static_cast<std::int32_t>(graph.operations.size());
  for (Type& type : types) {
    operation.results.push_back(static_cast<ValueId>(graph.values.size()));
    graph.values.push_back({std::move(type), index});
  }
  graph.operations.push_back(std::move(operation));
  return graph.operations.back().results;
}

Result<std::vector<ValueId>> infer_and_append(Graph& graph, const OpDescriptor* op,
                                              std::vector<ValueId> operands,
                                              Attributes attributes) {
  const std::vector<Type> types = graph.types(operands);
  auto results = op->infer(types, attributes);
  if (!results) {
    return results.error().in(
        fmt::format("operation {} of graph '{}'", graph.operations.size(), graph.name));
  }
  return append(graph, op, std::move(operands), std::move(attributes), std::move(*results));
}

}  // namespace

Error type_error(std::string_view op, std::string_view expected, std::span<const Type> found) {
  std::string list;
  for (const Type& type : found) list += (list.empty() ? "" : ", ") + type.text();
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("the operands do not fit '{}'", op),
               "",
               fmt::format("({})", list),
               std::string(expected),
               ""};
}

std::vector<Type> Graph::types(std::span<const ValueId> ids) const {
  std::vector<Type> out;
  out.reserve(ids.size());
  for (const ValueId id : ids) out.push_back(type(id));
  return out;
}

std::vector<std::int32_t> Graph::use_counts() const {
  std::vector<std::int32_t> counts(values.size(), 0);
  for (const Operation& operation : operations) {
    for (const ValueId id : operation.operands) ++counts[static_cast<std::size_t>(id)];
  }
  for (const ValueId id : outputs) ++counts[static_cast<std::size_t>(id)];
  return counts;
}

Builder::Builder(std::string name, OpLookup lookup) : lookup_(std::move(lookup)) {
  graph_.name = std::move(name);
}

ValueId Builder::add_value(Type type) {
  graph_.values.push_back({std::move(type), -1});
  return static_cast<ValueId>(graph_.values.size() - 1);
}

std::vector<ValueId> Builder::emit_all(std::string_view op, std::vector<ValueId> operands,
                                       Attributes attributes) {
  if (!status_.ok()) return {};
  const OpDescriptor* descriptor = lookup_(op);
  if (descriptor == nullptr) {
    status_ = unknown_op(op);
    return {};
  }
  auto results = infer_and_append(graph_, descriptor, std::move(operands), std::move(attributes));
  if (!results) {
    status_ = results.error();
    return {};
  }
  return *results;
}

ValueId Builder::emit(std::string_view op, std::vector<ValueId> operands, Attributes attributes) {
  const auto results = emit_all(op, std::move(operands), std::move(attributes));
  // After an error a harmless value stands in; finish() reports the error.
  return results.size() == 1 ? results[0] : (graph_.values.empty() ? add_value({}) : 0);
}

ValueId Builder::source(std::string_view op, Type type, Attributes attributes) {
  const OpDescriptor* descriptor = lookup_(op);
  if (descriptor == nullptr) {
    if (status_.ok()) status_ = unknown_op(op);
    return add_value(std::move(type));
  }
  return (*append(graph_, descriptor, {}, std::move(attributes), {std::move(type)}))[0];
}

void Builder::output(ValueId id, std::string name) {
  graph_.outputs.push_back(id);
  graph_.output_names.push_back(std::move(name));
}

Result<Graph> Builder::finish() {
  if (!status_.ok()) return status_.error();
  return std::move(graph_);
}

Rewriter::Rewriter(const Graph& source, OpLookup lookup)
    : source_(source), lookup_(std::move(lookup)), map_(source.values.size(), -1) {
  graph_.name = source.name;
  graph_.output_names = source.output_names;
  graph_.operations.reserve(source.operations.size());
  graph_.values.reserve(source.values.size());
}

std::vector<ValueId> Rewriter::map(std::span<const ValueId> old_ids) const {
  std::vector<ValueId> out;
  out.reserve(old_ids.size());
  for (const ValueId id : old_ids) out.push_back(map(id));
  return out;
}

void Rewriter::copy(const Operation& operation) {
  auto results = append(graph_, operation.op, map(operation.operands), operation.attributes,
                        source_.types(operation.results));
  for (std::size_t i = 0; i < operation.results.size(); ++i) {
    replace(operation.results[i], (*results)[i]);
  }
}

std::vector<ValueId> Rewriter::emit(std::string_view op, std::vector<ValueId> operands,
                                    Attributes attributes) {
  const OpDescriptor* descriptor = lookup_(op);
  if (descriptor == nullptr) {
    if (status_.ok()) status_ = unknown_op(op);
    return {};
  }
  auto results = infer_and_append(graph_, descriptor, std::move(operands), std::move(attributes));
  if (!results) {
    if (status_.ok()) status_ = results.error();
    return {};
  }
  return *results;
}

ValueId Rewriter::emit_source(const OpDescriptor* op, Type type, Attributes attributes) {
  return (*append(graph_, op, {}, std::move(attributes), {std::move(type)}))[0];
}

Result<Graph> Rewriter::finish() {
  if (!status_.ok()) return status_.error();
  for (const ValueId id : source_.outputs) graph_.outputs.push_back(map(id));
  return std::move(graph_);
}

Status verify(const Graph& graph) {
  const auto broken = [&](std::string what) {
    return Error{ErrorCode::kInternal, std::move(what), "graph '" + graph.name + "'", "", "", ""};
  };
  std::vector<bool> made(graph.values.size(), false);
  std::vector<bool> written(graph.values.size(), false);
  for (std::size_t index = 0; index < graph.operations.size(); ++index) {
    const Operation& operation = graph.operations[index];
    if (operation.op == nullptr) return broken(fmt::format("operation {} has no op", index));
    for (const ValueId id : operation.operands) {
      if (id < 0 || static_cast<std::size_t>(id) >= made.size() ||
          !made[static_cast<std::size_t>(id)]) {
        return broken(fmt::format("operation {} ({}) uses value {} before it is made", index,
                                  operation.op->name, id));
      }
    }
    for (const ValueId id : operation.results) {
      if (id < 0 || static_cast<std::size_t>(id) >= made.size() ||
          made[static_cast<std::size_t>(id)] ||
          graph.values[static_cast<std::size_t>(id)].producer != static_cast<std::int32_t>(index)) {
        return broken(
            fmt::format("operation {} ({}) makes value {} wrongly", index, operation.op->name, id));
      }
      made[static_cast<std::size_t>(id)] = true;
    }
    if (!operation.op->source) {
      auto types = operation.op->infer(graph.types(operation.operands), operation.attributes);
      if (!types) {
        return types.error().in(fmt::format("operation {} of graph '{}'", index, graph.name));
      }
      if (*types != graph.types(operation.results)) {
        return broken(fmt::format("operation {} ({}) has other result types than its rule gives",
                                  index, operation.op->name));
      }
    }
    if (operation.op->effect) {
      for (const ValueId id : operation.operands) {
        if (graph.type(id).layout != Layout::kCache) continue;
        if (written[static_cast<std::size_t>(id)]) {
          return broken(fmt::format("operation {} ({}) writes a state that another one wrote",
                                    index, operation.op->name));
        }
        written[static_cast<std::size_t>(id)] = true;
      }
    }
  }
  for (const ValueId id : graph.outputs) {
    if (id < 0 || static_cast<std::size_t>(id) >= made.size() ||
        !made[static_cast<std::size_t>(id)]) {
      return broken(fmt::format("output {} is never made", id));
    }
  }
  if (graph.outputs.size() != graph.output_names.size()) return broken("outputs without names");
  return {};
}

namespace {

// FNV-1a, 64 bits.
struct Hash {
  std::uint64_t state = 0xcbf29ce484222325u;
  void byte(std::uint8_t value) { state = (state ^ value) * 0x100000001b3u; }
  void number(std::uint64_t value) {
    state = (state ^ value) * 0x100000001b3u;
    state ^= state >> 29;
  }
  void text(std::string_view value) {
    for (const char c : value) byte(static_cast<std::uint8_t>(c));
    number(value.size());
  }
  void type(const Type& type) {
    number(static_cast<std::uint64_t>(type.dtype) << 8 | static_cast<std::uint64_t>(type.layout));
    number(type.shape.size());
    for (const std::int64_t extent : type.shape) number(static_cast<std::uint64_t>(extent));
  }
  void attribute(const Attribute& value) {
    number(value.index());
    std::visit(
        [this](const auto& held) {
          using Held = std::decay_t<decltype(held)>;
          if constexpr (std::is_same_v<Held, std::string>) {
            text(held);
          } else if constexpr (std::is_same_v<Held, Strings>) {
            number(held.size());
            for (const std::string& item : held) text(item);
          } else if constexpr (std::is_same_v<Held, Integers>) {
            number(held.size());
            for (const std::int64_t item : held) number(static_cast<std::uint64_t>(item));
          } else if constexpr (std::is_same_v<Held, Numbers>) {
            number(held.size());
            for (const double item : held) number(std::bit_cast<std::uint64_t>(item));
          } else if constexpr (std::is_same_v<Held, double>) {
            number(std::bit_cast<std::uint64_t>(held));
          } else {
            number(static_cast<std::uint64_t>(held));
          }
        },
        value);
  }
};

}  // namespace

std::uint64_t structural_hash(const Graph& graph) {
  Hash hash;
  for (const Operation& operation : graph.operations) {
    hash.text(operation.op->name);
    // Lengths keep the end of one list from passing for the beginning of the next.
    hash.number(operation.operands.size());
    hash.number(operation.results.size());
    for (const ValueId id : operation.operands) hash.number(static_cast<std::uint64_t>(id));
    for (const ValueId id : operation.results) hash.type(graph.type(id));
    for (const auto& [name, value] : operation.attributes) {
      hash.text(name);
      hash.attribute(value);
    }
  }
  for (std::size_t i = 0; i < graph.outputs.size(); ++i) {
    hash.number(static_cast<std::uint64_t>(graph.outputs[i]));
    hash.text(graph.output_names[i]);
  }
  return hash.state;
}

}  // namespace hone::ir

// A dialect of a few ops for the tests of this room, which knows no real one.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <vector>

#include "ir/graph.h"

namespace hone::ir::toy {

inline OpDescriptor op(std::string_view name,
                       Result<std::vector<Type>> (*infer)(std::span<const Type>,
                                                          const Attributes&)) {
  OpDescriptor made;
  made.name = name;
  made.summary = "a toy";
  made.infer = infer;
  return made;
}

inline const OpDescriptor* find(std::string_view name) {
  using Types = std::span<const Type>;
  static const auto kOps = [] {
    const auto none = [](Types operands, const Attributes&) -> Result<std::vector<Type>> {
      return type_error("source", "no inference", operands);
    };
    std::array ops = {
        op("input", none),
        op("parameter", none),
        op("cache", none),
        op("add",
           [](Types operands, const Attributes&) -> Result<std::vector<Type>> {
             if (operands.size() != 2 || operands[0] != operands[1]) {
               return type_error("add", "two equal types", operands);
             }
             return std::vector<Type>{operands[0]};
           }),
        op("split",
           [](Types operands, const Attributes& attributes) -> Result<std::vector<Type>> {
             const std::int64_t parts = attributes.integer("parts", 2);
             if (operands.size() != 1 || parts < 1 || parts > 8) {
               return type_error("split", "one operand, 1 to 8 parts", operands);
             }
             return std::vector<Type>(static_cast<std::size_t>(parts), operands[0]);
           }),
        op("write",
           [](Types operands, const Attributes&) -> Result<std::vector<Type>> {
             if (operands.size() != 2 || operands[0].layout != Layout::kCache) {
               return type_error("write", "a state and a value", operands);
             }
             return std::vector<Type>{operands[0]};
           }),
    };
    for (std::size_t i = 0; i < 3; ++i) ops[i].source = true;
    ops[5].effect = true;
    ops[3].evaluate = [](const Evaluation& evaluation) {
      for (std::size_t i = 0; i < evaluation.results[0].data.size(); ++i) {
        evaluation.results[0].data[i] =
            evaluation.operands[0]->data[i] + evaluation.operands[1]->data[i];
      }
    };
    ops[4].evaluate = [](const Evaluation& evaluation) {
      for (std::size_t part = 0; part < evaluation.results.size(); ++part) {
        evaluation.results[part].data = evaluation.operands[0]->data;
        for (double& value : evaluation.results[part].data) value += static_cast<double>(part);
      }
    };
    return ops;
  }();
  for (const OpDescriptor& candidate : kOps) {
    if (candidate.name == name) return &candidate;
  }
  return nullptr;
}

// split(a + b) in two; both parts leave the graph.
inline Graph small_graph() {
  Builder builder("small", find);
  const ValueId a = builder.source("input", tensor_type({2, 3}), {{"name", std::string("a")}});
  const ValueId b = builder.source("parameter", tensor_type({2, 3}), {{"name", std::string("b")}});
  const ValueId sum = builder.emit("add", {a, b}, {{"rate", 0.5}});
  const auto parts = builder.emit_all("split", {sum}, {{"parts", std::int64_t{2}}});
  builder.output(parts[0], "first");
  builder.output(parts[1], "second");
  return *builder.finish();
}

}  // namespace hone::ir::toy

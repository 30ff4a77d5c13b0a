// SPDX-License-Identifier: Apache-2.0
#include "examples.h"

#include <cstring>
#include <string>

#include "ops/registry.h"

namespace hone::testing_ops {

using ir::Example;
using ir::Tensor;

Result<ir::Graph> graph_of(const ir::OpDescriptor& op, const Example& example) {
  ir::Builder builder("example", ops::find_op);
  std::vector<ir::ValueId> operands;
  for (std::size_t i = 0; i < example.operands.size(); ++i) {
    const ir::Type& type = example.operands[i].type;
    // Matrices with the role of a weight come as parameters, so that the layout pass sees them.
    const bool weight = i > 0 && type.shape.size() == 2 &&
                        std::string_view(op.name).starts_with("matmul") &&
                        type.columns() == example.operands[0].type.columns();
    operands.push_back(builder.source(weight ? "parameter" : "input", type,
                                      {{"name", "operand" + std::to_string(i)}}));
  }
  const auto results = builder.emit_all(op.name, operands, example.attributes);
  for (std::size_t i = 0; i < results.size(); ++i) {
    builder.output(results[i], "result" + std::to_string(i));
  }
  return builder.finish();
}

Tensor draw(const ir::ExampleOperand& operand, Random& random) {
  if (!operand.values.empty()) return {operand.type, operand.values};
  Tensor tensor{operand.type, {}};
  for (std::int64_t i = 0; i < operand.type.elements(); ++i) {
    double value = 0;
    switch (operand.fill) {
      case ir::Fill::kNormal: value = random.normal(); break;
      case ir::Fill::kPositive: value = 0.5 + random.uniform(); break;
      case ir::Fill::kIndex: value = random.below(static_cast<std::uint32_t>(operand.bound)); break;
      case ir::Fill::kIota: value = static_cast<double>(i); break;
    }
    // What a kernel reads is an f32: the reference gets the same number.
    tensor.data.push_back(static_cast<double>(static_cast<float>(value)));
  }
  return tensor;
}

std::vector<std::byte> bytes_of(const Tensor& tensor) {
  if (tensor.type.dtype == DType::kI8) {
    std::vector<std::byte> codes;
    for (const double value : tensor.data) {
      codes.push_back(static_cast<std::byte>(static_cast<std::int8_t>(value)));
    }
    return codes;
  }
  std::vector<std::byte> bytes(tensor.data.size() * 4);
  for (std::size_t i = 0; i < tensor.data.size(); ++i) {
    const float f = static_cast<float>(tensor.data[i]);
    const auto n = static_cast<std::int32_t>(tensor.data[i]);
    std::memcpy(&bytes[i * 4], tensor.type.dtype == DType::kI32 ? static_cast<const void*>(&n) : &f,
                4);
  }
  return bytes;
}

bool is_auxiliary(const ir::OpDescriptor& op, std::size_t result) {
  return (op.name == "sequence_attention" || op.name == "output_loss") && result >= 1;
}

Result<GradientGraph> gradient_graph(const ir::OpDescriptor& op, std::span<const ir::Type> types,
                                     const ir::Attributes& attributes,
                                     std::span<const std::uint8_t> wanted) {
  ir::Builder builder("gradient", ops::find_op);
  const auto input = [&](const ir::Type& type, const std::string& name) {
    return builder.source("input", type, {{"name", name}});
  };
  std::vector<ir::ValueId> operands;
  for (std::size_t i = 0; i < types.size(); ++i) {
    operands.push_back(input(types[i], "operand" + std::to_string(i)));
  }
  const std::vector<ir::ValueId> results = builder.emit_all(op.name, operands, attributes);
  std::vector<ir::ValueId> incoming;
  for (std::size_t r = 0; r < results.size(); ++r) {
    incoming.push_back(is_auxiliary(op, r)
                           ? ir::kNoGradient
                           : input(builder.type(results[r]), "factor" + std::to_string(r)));
  }
  const ir::Emit emit = [&](std::string_view name, std::vector<ir::ValueId> with,
                            ir::Attributes how) {
    return builder.emit_all(name, std::move(with), std::move(how));
  };
  const std::vector<ir::ValueId> made =
      op.gradient({operands, types, results, incoming, wanted, attributes, emit});
  GradientGraph out;
  for (std::size_t i = 0; i < made.size(); ++i) {
    if (made[i] == ir::kNoGradient) continue;
    // An input cannot leave a graph as it is: a gradient may be the incoming one itself.
    builder.output(builder.emit("scale", {made[i]}, {{"factor", 1.0}}),
                   "gradient" + std::to_string(i));
    out.owners.push_back(i);
  }
  auto graph = builder.finish();
  if (!graph) return graph.error();
  out.graph = *std::move(graph);
  return out;
}

}  // namespace hone::testing_ops

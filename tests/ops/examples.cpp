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

}  // namespace hone::testing_ops

// What tests of ops share: graphs of one op, and operands drawn as its examples ask.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "base/random.h"
#include "ir/graph.h"

namespace hone::testing_ops {

// A graph of one op whose operands are all inputs "operand<i>".
Result<ir::Graph> graph_of(const ir::OpDescriptor& op, const ir::Example& example);

ir::Tensor draw(const ir::ExampleOperand& operand, Random& random);

// As kernels read it: f32, or i32.
std::vector<std::byte> bytes_of(const ir::Tensor& tensor);

// Results that no loss may depend on: they are for the gradient op alone, or gradients themselves.
bool is_auxiliary(const ir::OpDescriptor& op, std::size_t result);

// The gradients of an op of inputs "operand<i>", where those of its results are inputs "factor<r>".
struct GradientGraph {
  ir::Graph graph;
  std::vector<std::size_t> owners;  // the operand whose gradient output k is
};
Result<GradientGraph> gradient_graph(const ir::OpDescriptor& op, std::span<const ir::Type> types,
                                     const ir::Attributes& attributes,
                                     std::span<const std::uint8_t> wanted);

}  // namespace hone::testing_ops

// What tests of ops share: graphs of one op, and operands drawn as its examples ask.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <vector>

#include "base/random.h"
#include "ir/graph.h"

namespace hone::testing_ops {

// A graph of one op whose operands are all inputs "operand<i>".
Result<ir::Graph> graph_of(const ir::OpDescriptor& op, const ir::Example& example);

ir::Tensor draw(const ir::ExampleOperand& operand, Random& random);

// As kernels read it: f32, or i32.
std::vector<std::byte> bytes_of(const ir::Tensor& tensor);

}  // namespace hone::testing_ops

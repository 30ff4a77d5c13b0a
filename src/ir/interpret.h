// Runs a graph op by op with the ops' own references, in double precision: what every compiled form
// is compared with.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <vector>

#include "base/status.h"
#include "ir/graph.h"

namespace hone::ir {

// Gives the value of a source operation (input, parameter, state).
using Provide = std::function<Result<Tensor>(const Operation& operation, const Type& type)>;

Result<std::vector<Tensor>> interpret(const Graph& graph, const Provide& provide);

// Evaluates one operation on given operands.
std::vector<Tensor> evaluate(const OpDescriptor& op, std::span<const Tensor* const> operands,
                             std::span<const Type> result_types, const Attributes& attributes);

}  // namespace hone::ir

// Reverse-mode differentiation: adds the operations that compute gradients of a loss.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "base/status.h"
#include "ir/graph.h"

namespace hone::passes {

struct GradientOptions {
  // The output, by name, whose elements add up to the loss.
  std::string loss = "loss";
  // Parameters and inputs, by name, whose gradients are wanted.
  std::vector<std::string> wanted;
};

// The name of the output that holds the gradient of a parameter or input.
std::string gradient_name(std::string_view of);

// The same graph with the named parameters marked as `writable`: their bytes will change, so that
// no pass may ask for a copy of them in another layout.
Result<ir::Graph> mark_writable(const ir::Graph& graph, const std::vector<std::string>& names);

// The same graph with one more output for each wanted name: gradient_name(name), f32 of its shape.
// Wanted parameters are marked as writable. Backward operations follow all others, each gradient as
// early as its terms allow. Errors: kNotFound for a name that the graph does not have or the loss
// does not depend on, kUnsupported for an operation on the way that has no gradient rule.
Result<ir::Graph> add_gradients(const ir::Graph& graph, const GradientOptions& options);

}  // namespace hone::passes

// Forward-mode derivatives: how the loss changes along directions of parameters, computed beside
// the loss itself.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "ir/graph.h"

namespace hone::passes {

struct TangentOptions {
  std::string loss = "loss";         // the output whose change is wanted
  std::vector<std::string> changed;  // parameters in f32 that change
  int directions = 1;
  // Of each of them, or empty: its number where its direction is random signs
  // (ops/random_signs.cpp) that are drawn as they are read, below 0 where it is a parameter.
  std::vector<std::int64_t> drawn;
};

// "direction 2 of NAME": the parameter that holds direction 2 of a parameter, of its shape.
std::string direction_name(std::string_view of, int direction);
// The parameter, (4) i32, that holds the key of a direction's random signs.
std::string signs_key_name(int direction);

// Adds an output for each direction, of the loss's shape: its exact derivative along the direction
// (no step size; Wengert 1964; Griewank & Walther 2008, section 3.1). Values that no changed
// parameter reaches have no derivative, and cost nothing. Changed parameters and directions are
// marked writable. Errors: kNotFound for a loss that is none or that a direction does not reach,
// kUnsupported for an op on the way that has no rule.
Result<ir::Graph> add_tangents(const ir::Graph& graph, const TangentOptions& options);

}  // namespace hone::passes

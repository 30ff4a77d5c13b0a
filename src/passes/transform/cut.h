// A graph in two at one of its values.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "base/status.h"
#include "ir/graph.h"

namespace hone::passes {

struct Halves {
  ir::Graph below;  // ends with the value, the output `name`
  ir::Graph above;  // begins with it, an input of that name; what else it needs, it makes itself
};

// kUnsupported if `at` is no value of the graph.
Result<Halves> cut(const ir::Graph& graph, ir::ValueId at, const std::string& name);

}  // namespace hone::passes

// Graphs as text, in MLIR's generic form (https://mlir.llvm.org/docs/LangRef), and back. A real
// `mlir-opt --allow-unregistered-dialect` reads what `print` writes.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"
#include "ir/graph.h"

namespace hone::ir {

std::string print(const Graph& graph);

// Errors name line and column, what was found and what was expected. The graph is verified.
Result<Graph> parse(std::string_view text, const OpLookup& lookup);

}  // namespace hone::ir

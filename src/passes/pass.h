// What a pass is: a graph in, a graph out, one idea, one file.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string_view>

#include "base/status.h"
#include "ir/graph.h"

namespace hone::passes {

enum class PassKind : std::uint8_t {
  kRewrite,    // keeps every value: equal, or within the tolerance that it states
  kTransform,  // gives the graph a new meaning, which it states
};

struct Pass {
  std::string_view name;
  std::string_view summary;
  PassKind kind = PassKind::kRewrite;
  // Bound of |after - before| as a multiple of f32 epsilon times the largest |before|; 0: bit for
  // bit.
  double tolerance = 0;
  Result<ir::Graph> (*run)(const ir::Graph& graph) = nullptr;
};

// All passes in the order of passes/rewrite/list.inc and passes/transform/list.inc.
std::span<const Pass* const> all_passes();
const Pass* find_pass(std::string_view name);

#define HONE_PASS(name) const Pass& name##_pass();
#include "passes/rewrite/list.inc"
#include "passes/transform/list.inc"
#undef HONE_PASS

}  // namespace hone::passes

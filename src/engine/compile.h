// From a family and a batch to a program: which passes run, in which order, and what each did.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/status.h"
#include "cost/roofline.h"
#include "ir/graph.h"
#include "passes/lower/lower.h"
#include "runtime/program.h"

namespace hone::engine {

// How the matmuls with quantized weights compute.
enum class Arithmetic : std::uint8_t {
  kInteger,  // int8 activations, integer dot products: fast
  kFloat,    // f32 activations, weights decoded in registers: the reference
};

struct CompileOptions {
  Arithmetic arithmetic = Arithmetic::kInteger;
  std::vector<std::string> disabled;  // passes left out
  // Instead of the default order, where not empty: names of passes.
  std::vector<std::string> order;
#ifdef NDEBUG
  bool verify = false;  // after every pass
#else
  bool verify = true;
#endif
  passes::LowerOptions lower;
};

// What one pass changed: counts and costs before and after.
struct PassReport {
  std::string name;
  std::size_t operations_before = 0, operations_after = 0;
  cost::Estimate before, after;
  std::int64_t nanoseconds = 0;
};

// Sees the graph after each pass ("" : before the first).
using Observe = std::function<void(const std::string& pass, const ir::Graph& graph)>;

// The passes that the options mean, in order; an error for a name that is none.
Result<std::vector<std::string>> pipeline(const CompileOptions& options);

Result<ir::Graph> run_passes(ir::Graph graph, const CompileOptions& options,
                             std::vector<PassReport>* report = nullptr,
                             const Observe& observe = nullptr, const cost::Machine& machine = {});

Result<runtime::Program> compile(ir::Graph graph, const CompileOptions& options,
                                 std::vector<PassReport>* report = nullptr);

}  // namespace hone::engine

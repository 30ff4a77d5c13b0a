// Lowering: a graph becomes a program. Chooses a kernel for every op, lets every thread compute
// cheap values for itself where that saves a barrier, and plans the memory.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/status.h"
#include "base/threads.h"
#include "ir/graph.h"
#include "kernels/registry.h"
#include "runtime/program.h"

namespace hone::passes {

// One thread's share of a parameter's step against its gradient. All threads call it at once.
using UpdateFunction = std::function<void(std::span<float> weights, std::span<const float> gradient,
                                          runtime::Worker worker)>;

struct LowerOptions {
  int threads = 1;
  kernels::CacheKind cache = kernels::CacheKind::kF16;
  const kernels::KernelTable* kernels = nullptr;  // null: the best of this machine
  bool reference = false;                         // run every op by its reference: slow, for tests
  // For graphs with `update`: how the parameter of that name steps. Rooms below know no update
  // rules.
  std::function<UpdateFunction(std::string_view name)> update;
};

Result<runtime::Program> lower(const ir::Graph& graph, const LowerOptions& options);

class Lowering;
using LoweringRule = Result<runtime::StepFunction> (*)(Lowering& lowering,
                                                       const ir::Operation& operation);

// What a lowering rule sees.
class Lowering {
 public:
  Lowering(const ir::Graph& graph, const LowerOptions& options);

  const ir::Type& type(ir::ValueId id) const { return graph_.type(id); }
  runtime::Place place(ir::ValueId id) const { return places_[static_cast<std::size_t>(id)]; }
  const kernels::KernelTable& kernels() const { return *kernels_; }
  const LowerOptions& options() const { return options_; }
  // Bytes that each thread needs for itself while the step runs.
  void want_scratch(std::size_t bytes);

  Result<runtime::Program> run();

 private:
  void place_source(const ir::Operation& operation);
  bool worth_private(const ir::Operation& operation) const;
  LoweringRule rule_for(const ir::Operation& operation) const;
  Status make_steps();
  void plan();

  const ir::Graph& graph_;
  LowerOptions options_;
  const kernels::KernelTable* kernels_;
  runtime::Program program_;
  std::vector<runtime::Place> places_;
  std::vector<ir::ValueId> roots_;          // through aliases, whose bytes a value has
  std::vector<std::int32_t> step_of_;       // the step that makes a value; -1 for sources
  std::vector<const ir::Operation*> made_;  // the operation of each step
};

// The rows that a worker computes: its share, or all of them where the result is private.
Range rows_of(std::int64_t rows, const runtime::Place& result, runtime::Worker worker);

// Every rule of list.inc is a function lower_<rule>.
#define HONE_LOWERING(op, rule) \
  Result<runtime::StepFunction> lower_##rule(Lowering& lowering, const ir::Operation& operation);
#include "passes/lower/list.inc"
#undef HONE_LOWERING
// Runs the op by its reference, on one thread.
Result<runtime::StepFunction> lower_reference(Lowering& lowering, const ir::Operation& operation);

}  // namespace hone::passes

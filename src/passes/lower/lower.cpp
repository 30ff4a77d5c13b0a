// SPDX-License-Identifier: Apache-2.0
#include "passes/lower/lower.h"

#include <fmt/format.h>

#include <algorithm>

namespace hone::passes {

namespace {

using ir::Operation;
using ir::ValueId;
using runtime::Lifetime;
using runtime::Place;
using runtime::Space;

LoweringRule rule_of(std::string_view op) {
#define HONE_LOWERING(name, rule) \
  if (op == #name) return lower_##rule;
#include "passes/lower/list.inc"
#undef HONE_LOWERING
  return nullptr;
}

// Up to this many elements and operations a thread computes a row-wise result for itself: about a
// microsecond of work, what a barrier between threads and its wait cost (base/threads_bench.cpp).
constexpr std::int64_t kPrivateElements = 4096;
constexpr double kPrivateOperations = 65536;

std::size_t at(ValueId id) { return static_cast<std::size_t>(id); }

}  // namespace

Range rows_of(std::int64_t rows, const Place& result, runtime::Worker worker) {
  if (result.space == Space::kPrivate) return {0, rows};
  return share_of(rows, worker.thread, worker.threads);
}

Lowering::Lowering(const ir::Graph& graph, const LowerOptions& options)
    : graph_(graph),
      options_(options),
      kernels_(options.kernels != nullptr ? options.kernels : &kernels::kernels()),
      places_(graph.values.size()),
      roots_(graph.values.size()),
      step_of_(graph.values.size(), -1) {
  for (std::size_t i = 0; i < roots_.size(); ++i) roots_[i] = static_cast<ValueId>(i);
  program_.name = graph.name;
  program_.threads = options.threads;
}

// An update has no reference: what it does is the caller's to say.
LoweringRule Lowering::rule_for(const Operation& operation) const {
  if (options_.reference && !operation.is("update")) return nullptr;
  return rule_of(operation.op->name);
}

void Lowering::want_scratch(std::size_t bytes) {
  program_.scratch_bytes = std::max(program_.scratch_bytes, (bytes + 63) / 64 * 64);
}

void Lowering::place_source(const Operation& operation) {
  const ValueId id = operation.results[0];
  const bool is_cache = operation.is("cache");
  const bool is_input = operation.is("input");
  auto& slots = is_cache ? program_.caches : is_input ? program_.inputs : program_.parameters;
  const Space space = is_cache ? Space::kCache : is_input ? Space::kInput : Space::kParameter;
  const Place place{space, slots.size(), static_cast<std::size_t>(type(id).bytes())};
  const std::string name = is_cache ? fmt::format("{}", operation.attributes.integer("layer"))
                                    : std::string(operation.attributes.text("name"));
  slots.push_back({name, type(id), place});
  places_[at(id)] = place;
}

bool Lowering::worth_private(const Operation& operation) const {
  if (!operation.op->row_wise || options_.threads == 1) return false;
  std::int64_t elements = 0;
  for (const ValueId id : operation.results) elements += type(id).elements();
  if (elements > kPrivateElements || operation.op->cost == nullptr) return false;
  const ir::Cost cost = operation.op->cost(graph_.types(operation.operands),
                                           graph_.types(operation.results), operation.attributes);
  return cost.operations <= kPrivateOperations;
}

Status Lowering::make_steps() {
  for (std::size_t index = 0; index < graph_.operations.size(); ++index) {
    const Operation& operation = graph_.operations[index];
    if (operation.op->source) {
      place_source(operation);
      continue;
    }
    if (operation.op->alias) {
      const ValueId origin = operation.operands[0];
      roots_[at(operation.results[0])] = roots_[at(origin)];
      places_[at(operation.results[0])] = places_[at(origin)];
      continue;
    }
    const LoweringRule rule = rule_for(operation);
    const bool is_private = rule != nullptr && worth_private(operation);
    for (const ValueId id : operation.results) {
      const bool state = type(id).layout == ir::Layout::kCache;
      // The state that an effect gives back is the one that it was given.
      for (const ValueId operand : operation.operands) {
        if (state && type(operand).layout == ir::Layout::kCache) {
          places_[at(id)] = places_[at(operand)];
          roots_[at(id)] = roots_[at(operand)];
        }
      }
      if (state) continue;
      places_[at(id)] = {is_private ? Space::kPrivate : Space::kArena, 0,
                         static_cast<std::size_t>(type(id).bytes())};
      step_of_[at(id)] = static_cast<std::int32_t>(made_.size());
    }
    made_.push_back(&operation);
    runtime::Step step;
    step.barrier = !is_private;
    step.operation = static_cast<std::int32_t>(index);
    step.op = operation.op->name;
    if (operation.op->cost != nullptr) {
      step.cost = operation.op->cost(graph_.types(operation.operands),
                                     graph_.types(operation.results), operation.attributes);
    }
    for (std::size_t i = 0; i < operation.operands.size(); ++i) {
      const Place& read = places_[at(operation.operands[i])];
      if (read.space != Space::kParameter) continue;
      runtime::WeightUse use{static_cast<std::int32_t>(read.at), -1};
      if (operation.is("gather") && i == 0) {
        const Place& rows = places_[at(operation.operands[1])];
        if (rows.space == Space::kInput) use.rows_input = static_cast<std::int32_t>(rows.at);
      }
      step.weights.push_back(use);
    }
    program_.steps.push_back(std::move(step));
  }
  return {};
}

void Lowering::plan() {
  // A value may be overwritten only after a barrier that follows its last reader: another thread
  // may still be reading. So a life ends at the first step with a barrier from the last use on.
  const auto steps = static_cast<std::int32_t>(made_.size());
  std::vector<std::int32_t> next_barrier(made_.size());
  for (std::int32_t i = steps, next = steps; i-- > 0;) {
    if (program_.steps[static_cast<std::size_t>(i)].barrier) next = i;
    next_barrier[static_cast<std::size_t>(i)] = next;
  }
  std::vector<std::int32_t> last(graph_.values.size(), -1);
  for (std::int32_t i = 0; i < steps; ++i) {
    const Operation& operation = *made_[static_cast<std::size_t>(i)];
    for (const ValueId id : operation.results) last[at(id)] = std::max(last[at(id)], i);
    for (const ValueId id : operation.operands) last[at(roots_[at(id)])] = i;
  }
  for (const ValueId id : graph_.outputs) last[at(roots_[at(id)])] = steps;
  for (const Space space : {Space::kArena, Space::kPrivate}) {
    std::vector<Lifetime> lives;
    std::vector<ValueId> ids;
    for (std::size_t i = 0; i < places_.size(); ++i) {
      const auto id = static_cast<ValueId>(i);
      if (step_of_[i] < 0 || roots_[i] != id || places_[i].space != space) continue;
      const bool ends = last[i] < steps && space == Space::kArena;
      const std::int32_t end = ends ? next_barrier[static_cast<std::size_t>(last[i])] : last[i];
      lives.push_back({step_of_[i], end, places_[i].bytes});
      ids.push_back(id);
    }
    const runtime::MemoryPlan plan = runtime::plan_memory(lives);
    for (std::size_t i = 0; i < ids.size(); ++i) {
      Place& place = places_[at(ids[i])];
      place.at = plan.offsets[i];
      program_.planned.push_back(
          {fmt::format("%{} {}", ids[i], graph_.producer(ids[i]).op->name), lives[i], place});
    }
    (space == Space::kArena ? program_.arena_bytes : program_.private_bytes) = plan.total;
  }
  for (std::size_t i = 0; i < places_.size(); ++i) places_[i] = places_[at(roots_[i])];
}

Result<runtime::Program> Lowering::run() {
  HONE_RETURN_IF_ERROR(make_steps());
  plan();
  for (std::size_t i = 0; i < made_.size(); ++i) {
    const LoweringRule rule = rule_for(*made_[i]);
    auto step = rule != nullptr ? rule(*this, *made_[i]) : lower_reference(*this, *made_[i]);
    if (!step) return step.error();
    program_.steps[i].run = std::move(*step);
  }
  for (std::size_t i = 0; i < graph_.outputs.size(); ++i) {
    const ValueId id = graph_.outputs[i];
    if (place(id).space != Space::kArena && place(id).space != Space::kPrivate) {
      return Error{ErrorCode::kUnsupported,
                   "an output must be computed, not passed through",
                   fmt::format("output '{}'", graph_.output_names[i]),
                   "",
                   "",
                   ""};
    }
    program_.outputs.push_back({graph_.output_names[i], type(id), place(id)});
  }
  return std::move(program_);
}

Result<runtime::Program> lower(const ir::Graph& graph, const LowerOptions& options) {
  return Lowering(graph, options).run();
}

}  // namespace hone::passes

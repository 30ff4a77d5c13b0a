// SPDX-License-Identifier: Apache-2.0
#include "passes/transform/recompute.h"

#include <fmt/format.h>

#include <algorithm>
#include <queue>

#include "ops/registry.h"

namespace hone::passes {
namespace {

using ir::Operation;
using ir::ValueId;

std::size_t at(ValueId id) { return static_cast<std::size_t>(id); }

class Recompute {
 public:
  Recompute(const ir::Graph& graph, const RecomputeOptions& options)
      : graph_(graph), options_(options), kept_(graph.values.size(), 0) {}

  Result<ir::Graph> run(RecomputeReport& report) {
    for (std::size_t i = 0; i < graph_.outputs.size(); ++i) {
      if (graph_.output_names[i] == options_.loss) {
        boundary_ = graph_.values[at(graph_.outputs[i])].producer;
      }
    }
    if (boundary_ < 0) {
      return Error{ErrorCode::kNotFound,
                   fmt::format("the graph has no output '{}'", options_.loss),
                   fmt::format("graph '{}'", graph_.name),
                   "",
                   "",
                   ""};
    }
    find_kept();
    report.kept_before = kept_bytes_;
    choose();
    report.kept = kept_bytes_;
    return emit(report);
  }

 private:
  bool forward(ValueId id) const {
    return graph_.values[at(id)].producer <= boundary_ && !graph_.producer(id).op->source;
  }
  // The loss itself and state stay: they are made once.
  bool movable(ValueId id) const {
    const Operation& operation = graph_.producer(id);
    return graph_.values[at(id)].producer < boundary_ && !operation.op->effect &&
           !operation.op->source;
  }

  void find_kept() {
    std::vector<std::uint8_t> used(graph_.values.size(), 0);
    for (std::size_t i = static_cast<std::size_t>(boundary_) + 1; i < graph_.operations.size();
         ++i) {
      for (const ValueId id : graph_.operations[i].operands) used[at(id)] = 1;
    }
    // An alias is nothing of its own: its bytes are its operand's.
    for (std::size_t i = graph_.values.size(); i-- > 0;) {
      const auto id = static_cast<ValueId>(i);
      if (used[i] == 0 || !forward(id)) continue;
      const Operation& operation = graph_.producer(id);
      if (operation.op->alias) {
        used[at(operation.operands[0])] = 1;
        continue;
      }
      kept_[i] = 1;
      kept_bytes_ += graph_.type(id).bytes();
    }
  }

  double seconds_of(const Operation& operation) const {
    if (operation.op->alias || operation.op->cost == nullptr) return 0;
    const ir::Cost cost = operation.op->cost(graph_.types(operation.operands),
                                             graph_.types(operation.results), operation.attributes);
    const bool integer = !operation.operands.empty() &&
                         graph_.type(operation.operands[0]).layout == ir::Layout::kInt8Rows;
    const cost::Machine& machine = options_.machine;
    const double peak = integer ? machine.int8_operations : machine.f32_operations;
    return std::max(cost.operations / peak, cost.bytes / machine.bytes);
  }

  // Seconds to make a value again out of what is kept; operations on the way count once.
  double seconds_to_make(ValueId id, std::vector<std::uint8_t>& seen,
                         std::vector<std::int32_t>& touched) const {
    const std::int32_t producer = graph_.values[at(id)].producer;
    if (seen[static_cast<std::size_t>(producer)] != 0) return 0;
    seen[static_cast<std::size_t>(producer)] = 1;
    touched.push_back(producer);
    const Operation& operation = graph_.operations[static_cast<std::size_t>(producer)];
    double seconds = seconds_of(operation);
    for (const ValueId operand : operation.operands) {
      if (!forward(operand) || kept_[at(operand)] != 0) continue;
      seconds += seconds_to_make(operand, seen, touched);
    }
    return seconds;
  }

  void choose() {
    struct Candidate {
      double price;  // seconds a byte
      ValueId id;
      bool operator>(const Candidate& other) const {
        return price != other.price ? price > other.price : id > other.id;
      }
    };
    std::vector<std::uint8_t> seen(graph_.operations.size(), 0);
    std::vector<std::int32_t> touched;
    const auto price_of = [&](ValueId id) {
      touched.clear();
      const double seconds = seconds_to_make(id, seen, touched);
      for (const std::int32_t index : touched) seen[static_cast<std::size_t>(index)] = 0;
      return seconds / static_cast<double>(std::max<std::int64_t>(1, graph_.type(id).bytes()));
    };
    std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
    if (kept_bytes_ <= options_.budget) return;
    for (std::size_t i = 0; i < kept_.size(); ++i) {
      const auto id = static_cast<ValueId>(i);
      if (kept_[i] != 0 && movable(id)) queue.push({price_of(id), id});
    }
    while (kept_bytes_ > options_.budget && !queue.empty()) {
      Candidate best = queue.top();
      queue.pop();
      // Prices only rise while less is kept: one that rose goes back into the queue.
      const double price = price_of(best.id);
      if (!queue.empty() && price > queue.top().price) {
        queue.push({price, best.id});
        continue;
      }
      kept_[at(best.id)] = 0;
      kept_bytes_ -= graph_.type(best.id).bytes();
    }
  }

  // Copies the producer of a value (and of what it needs) to where the rewriter stands.
  void make_again(ir::Rewriter& rewriter, ValueId id, RecomputeReport& report) {
    if (!forward(id) || kept_[at(id)] != 0 || again_[at(id)] != 0) return;
    const Operation& operation = graph_.producer(id);
    for (const ValueId operand : operation.operands) make_again(rewriter, operand, report);
    ir::Attributes attributes = operation.attributes;
    // So that it is not merged with its twin.
    if (!operation.op->alias) attributes.set("again", true);
    const auto made =
        rewriter.emit(operation.op->name, rewriter.map(operation.operands), std::move(attributes));
    report.again += operation.op->alias ? 0 : 1;
    report.seconds_again += seconds_of(operation);
    for (std::size_t i = 0; i < made.size(); ++i) {
      const ValueId result = operation.results[i];
      if (kept_[at(result)] != 0) continue;
      again_[at(result)] = 1;
      rewriter.replace(result, made[i]);
    }
  }

  Result<ir::Graph> emit(RecomputeReport& report) {
    again_.assign(graph_.values.size(), 0);
    ir::Rewriter rewriter(graph_, ops::find_op);
    std::vector<ValueId> outputs;
    for (std::size_t i = 0; i < graph_.operations.size(); ++i) {
      const Operation& operation = graph_.operations[i];
      if (i == static_cast<std::size_t>(boundary_) + 1) outputs = mapped_outputs(rewriter);
      if (i > static_cast<std::size_t>(boundary_)) {
        for (const ValueId id : operation.operands) make_again(rewriter, id, report);
      }
      rewriter.copy(operation);
    }
    auto result = rewriter.finish();
    if (!result) return result;
    // Outputs of the forward part are what it made, not what was made again.
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      if (forward(graph_.outputs[i])) result->outputs[i] = outputs[i];
    }
    return result;
  }

  std::vector<ValueId> mapped_outputs(const ir::Rewriter& rewriter) const {
    return rewriter.map(graph_.outputs);
  }

  const ir::Graph& graph_;
  const RecomputeOptions& options_;
  std::int32_t boundary_ = -1;
  std::vector<std::uint8_t> kept_;  // by value: read by the backward part, and not made again
  std::vector<std::uint8_t> again_;
  std::int64_t kept_bytes_ = 0;
};

}  // namespace

Result<ir::Graph> recompute(const ir::Graph& graph, const RecomputeOptions& options,
                            RecomputeReport* report) {
  RecomputeReport own;
  return Recompute(graph, options).run(report != nullptr ? *report : own);
}

}  // namespace hone::passes

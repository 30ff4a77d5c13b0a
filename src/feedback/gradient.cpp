// SPDX-License-Identifier: Apache-2.0
#include "feedback/gradient.h"

#include <algorithm>
#include <map>
#include <numeric>

#include "feedback/choices.h"
#include "feedback/kept_layers.h"
#include "passes/pass.h"
#include "passes/transform/gradient.h"
#include "passes/transform/loss.h"
#include "passes/transform/tangent.h"
#include "passes/transform/update.h"

namespace hone::feedback {
namespace {

double sum_of(std::span<const double> values) {
  return std::accumulate(values.begin(), values.end(), 0.0);
}

// The sums over each sequence's rows of values (M), each times its factor if there are any; of
// questions, over the rows of their choices.
std::vector<double> unit_sums(const TokenBatch& batch, std::span<const float> values,
                              std::span<const double> factors) {
  const bool asks = !batch.choice_questions.empty();
  std::vector<double> sums(asks ? static_cast<std::size_t>(batch.choice_questions.back()) + 1
                                : static_cast<std::size_t>(batch.sequences()),
                           0.0);
  for (std::size_t i = 0; i < batch.rows.size(); ++i) {
    std::size_t unit = 0;
    if (asks) {
      const auto choice = static_cast<std::size_t>(batch.row_choices[i]);
      unit = static_cast<std::size_t>(batch.choice_questions[choice]);
    } else {
      const auto behind = std::ranges::upper_bound(batch.offsets, batch.rows[i]);
      unit = static_cast<std::size_t>(behind - batch.offsets.begin()) - 1;
    }
    sums[unit] += double{values[i]} * (factors.empty() ? 1.0 : factors[i]);
  }
  return sums;
}

Result<ir::Graph> run_pass(std::string_view name, const ir::Graph& graph) {
  auto after = passes::find_pass(name)->run(graph);
  if (!after) return after.error().in("pass '" + std::string(name) + "'");
  return after;
}

}  // namespace

Gradient::Gradient(engine::Session& session, GradientOptions options,
                   std::shared_ptr<runtime::Workspace> workspace)
    : session_(session), options_(std::move(options)), workspace_(std::move(workspace)) {
  options_.compile.lower.threads = session_.pool().size();
  options_.compile.lower.update = options_.update;
}

Result<ir::Graph> Gradient::build(const models::Batch& shape, GradientPlan& plan) {
  auto graph = session_.build_graph(shape);
  if (!graph) return graph;
  graph = run_pass("sequences", *graph);
  if (graph && options_.adapt) graph = options_.adapt(*graph);
  if (graph && options_.kept_layers != nullptr) graph = options_.kept_layers->above(*graph);
  const bool losses_only = options_.forward_only && options_.directions == 0;
  const auto form = losses_only              ? passes::LossForm::kLosses
                    : options_.trains_output ? passes::LossForm::kWeightGradient
                                             : passes::LossForm::kGradient;
  if (graph) graph = passes::add_loss(*graph, form);
  const bool integer = options_.compile.arithmetic == engine::Arithmetic::kInteger;
  for (const char* name : {"fold", "integer", "cse"}) {
    if (graph && (integer || std::string_view(name) != "integer")) graph = run_pass(name, *graph);
  }
  if (graph && options_.directions > 0) {
    graph = passes::add_tangents(*graph,
                                 {"loss", options_.trained, options_.directions, options_.drawn});
  } else if (graph && options_.forward_only) {
    graph = passes::mark_writable(*graph, options_.trained);
  } else if (graph) {
    graph = passes::add_gradients(*graph, {"loss", options_.trained});
  }
  for (const char* name : {"cse", "dce"}) {
    if (graph) graph = run_pass(name, *graph);
  }
  if (graph && !options_.rounding.empty()) graph = run_pass(options_.rounding, *graph);
  passes::RecomputeOptions recompute;
  recompute.budget = options_.kept_bytes;
  recompute.machine = options_.machine;
  if (graph) graph = passes::recompute(*graph, recompute, &plan.kept);
  for (const char* name :
       {"dce", "fuse_signs", "fuse_norm", "fuse_residual", "fuse_gate", "fuse_group", "layout"}) {
    const bool disabled = std::ranges::count(options_.compile.disabled, name) > 0;
    if (graph && !disabled) graph = run_pass(name, *graph);
  }
  if (graph && options_.update && trains_backward()) graph = passes::add_updates(*graph);
  if (graph) graph = run_pass("dce", *graph);
  if (graph && options_.compile.verify) {
    const Status status = ir::verify(*graph);
    if (!status.ok()) return status.error().in("the training graph");
  }
  if (graph) plan.cost = cost::estimate(*graph, options_.machine);
  return graph;
}

Result<Gradient::Bound*> Gradient::program_for(const models::Batch& shape) {
  Bound* known = programs_.find([&](const Bound& each) {
    return each.shape.tokens == shape.tokens && each.shape.sequences == shape.sequences &&
           each.shape.rows == shape.rows;
  });
  if (known != nullptr) return known;
  Bound bound;
  bound.shape = shape;
  auto graph = build(shape, bound.plan);
  if (!graph) return graph.error();
  auto program = passes::lower(*graph, options_.compile.lower);
  if (!program) return program.error();
  ++compiled_;
  bound.program = std::make_shared<const runtime::Program>(*std::move(program));
  bound.plan.tokens = shape.tokens;
  bound.plan.arena_bytes = static_cast<std::int64_t>(bound.program->arena_bytes);
  bound.plan.work_bytes =
      static_cast<std::int64_t>(runtime::workspace_bytes(*bound.program)) - bound.plan.arena_bytes;
  auto weights = session_.weights().bind(*bound.program);
  if (!weights) return weights.error();
  bound.weights = *std::move(weights);
  return programs_.add(std::move(bound));
}

Result<GradientPlan> Gradient::plan(const TokenBatch& batch) {
  const auto shape = shape_of(batch);
  if (!shape) return shape.error();
  auto bound = program_for(*shape);
  if (!bound) return bound.error();
  GradientPlan plan = (*bound)->plan;
  if (options_.kept_layers == nullptr) return plan;
  // One runs after the other in the same memory.
  const auto below = options_.kept_layers->plan(*shape);
  if (!below) return below.error();
  plan.arena_bytes = std::max(plan.arena_bytes, below->arena_bytes);
  plan.work_bytes = std::max(plan.work_bytes, below->work_bytes);
  plan.cost += below->cost;
  return plan;
}

Result<Gradient::Outcome> Gradient::run(const TokenBatch& batch) {
  const auto shape = shape_of(batch);
  if (!shape) return shape.error();
  auto found = program_for(*shape);
  if (!found) return found.error();
  Bound& bound = **found;
  const BatchInputs given(batch, *shape);
  const runtime::Program& program = *bound.program;
  std::span<const float> below;
  if (options_.kept_layers != nullptr) {
    const auto rows = options_.kept_layers->rows(batch, shape->tokens);
    if (!rows) return rows.error();
    below = *rows;
  }
  const std::vector<std::span<const std::byte>> inputs = given.bind(program, below);
  HONE_RETURN_IF_ERROR(runtime::execute(program, {bound.weights, inputs, {}}, session_.pool(),
                                        *workspace_, profile_ ? &bound.profile : nullptr));
  Outcome outcome;
  const std::span<const float> losses = runtime::output(program, *workspace_, 0);
  const bool asks = !batch.choice_questions.empty();
  ChoiceLoss choices;
  if (asks) choices = choice_loss(losses, batch);
  outcome.right = choices.right;
  outcome.choice_scores = choices.scores;
  outcome.unit_losses = asks ? choices.losses : unit_sums(batch, losses, {});
  outcome.loss = sum_of(outcome.unit_losses);
  outcome.weight = std::accumulate(given.whole().weights.begin(), given.whole().weights.end(), 0.0);
  for (std::size_t i = 1; i < program.outputs.size(); ++i) {
    const std::span<const float> values = runtime::output(program, *workspace_, i);
    if (options_.directions > 0) {
      outcome.unit_derivatives.push_back(unit_sums(batch, values, choices.slopes));
      outcome.derivatives.push_back(sum_of(outcome.unit_derivatives.back()));
    } else {
      outcome.gradients.push_back(values);
    }
  }
  return outcome;
}

void Gradient::profile(bool on) {
  profile_ = on;
  for (Bound& bound : programs_) bound.profile = {};
}

std::vector<std::pair<std::string, double>> Gradient::profiled() const {
  std::map<std::string, double> sums;
  for (const Bound& bound : programs_) {
    for (std::size_t i = 0; i < bound.profile.step_nanoseconds.size(); ++i) {
      sums[std::string(bound.program->steps[i].op)] +=
          static_cast<double>(bound.profile.step_nanoseconds[i]) * 1e-9;
    }
  }
  std::vector<std::pair<std::string, double>> rows(sums.begin(), sums.end());
  std::ranges::sort(rows, std::greater<>(), &std::pair<std::string, double>::second);
  return rows;
}

}  // namespace hone::feedback

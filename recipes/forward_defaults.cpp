// The choice of defaults for forward passes, as an experiment: which probes agree with exact
// derivatives, which directions are worth their cost, how many layers should move.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <span>

#include "recipes/recipe.h"
#include "tune/correlation.h"
#include "tune/direction_study.h"

namespace hone::recipes {
namespace {

using engine::Arithmetic;
using tune::DirectionTrial;

DirectionTrial trial_of(std::int64_t directions, std::string layers) {
  DirectionTrial trial;
  trial.job.method.method = "zo";
  trial.job.method.rank = 16;
  trial.job.method.alpha = 16;
  trial.job.directions = directions;
  trial.job.layers = std::move(layers);
  return trial;
}

// E1: do 8-bit activations leave the derivative alone? Correlation with f32 tangents.
Status agreement(const RecipeContext& context, const tune::ChoiceStudy& study,
                 RecipeReport& report) {
  DirectionTrial exact = trial_of(context.scaled(100, 4), "all");
  exact.questions = context.scaled(16, 2);
  exact.job.factor = "random";  // factors from inputs would differ with the arithmetic
  exact.arithmetic = Arithmetic::kFloat;
  const auto reference = derivatives_of(study, exact);
  if (!reference) return reference.error();
  const auto row = [&](const char* what, const char* probe, Arithmetic arithmetic, double epsilon,
                       double bound) -> Status {
    DirectionTrial trial = exact;
    trial.job.probe = probe;
    trial.job.epsilon = epsilon;
    trial.arithmetic = arithmetic;
    const auto found = derivatives_of(study, trial);
    if (!found) return found.error();
    const double correlation = tune::linear_correlation(*reference, *found);
    report.rows.push_back(
        checked(fmt::format("correlation with exact derivatives: {}", what),
                bound > 0 ? fmt::format("at least {}", bound) : "-",
                fmt::format("{:.5f} over {} directions", correlation, found->size()),
                correlation >= bound));
    context.tell(fmt::format("{}: {:.5f}", what, correlation));
    return {};
  };
  HONE_RETURN_IF_ERROR(row("int8 tangents", "tangent", Arithmetic::kInteger, 1e-3, 0.999));
  HONE_RETURN_IF_ERROR(row("int8 pairs, 1e-3", "pair", Arithmetic::kInteger, 1e-3, 0));
  HONE_RETURN_IF_ERROR(row("int8 pairs, 1e-2", "pair", Arithmetic::kInteger, 1e-2, 0));
  return row("f32 pairs, 1e-3", "pair", Arithmetic::kFloat, 1e-3, 0);
}

// E2 and E3: the best step along one direction, and what trying it costs.
Status worths(const RecipeContext& context, const tune::ChoiceStudy& study, RecipeReport& report) {
  struct Kind {
    const char* what;
    const char* perturb;
    const char* factor;
    const char* modules;
    std::int64_t rank;
    const char* layers;
  };
  constexpr std::array kKinds = {
      Kind{"A random, all layers", "low-rank", "random", "all", 16, "all"},
      Kind{"A of inputs, all layers", "low-rank", "inputs", "all", 16, "all"},
      Kind{"A of inputs, rank 1", "low-rank", "inputs", "all", 1, "all"},
      Kind{"A of inputs, q and v", "low-rank", "inputs", "q,v", 16, "all"},
      Kind{"A of inputs, o and down", "low-rank", "inputs", "o,down", 16, "all"},
      Kind{"a soft prompt", "prompt", "inputs", "all", 16, "all"},
      Kind{"A of inputs, last half", "low-rank", "inputs", "all", 16, "15"},
      Kind{"A of inputs, last sixth", "low-rank", "inputs", "all", 16, "5"},
      Kind{"A of inputs, last 2 layers", "low-rank", "inputs", "all", 16, "2"},
      Kind{"o and down, last sixth", "low-rank", "inputs", "o,down", 16, "5"}};
  const auto kinds = static_cast<std::size_t>(context.scaled(std::ssize(kKinds), 2));
  for (const Kind& kind : std::span(kKinds).first(std::min(kinds, kKinds.size()))) {
    DirectionTrial trial = trial_of(context.scaled(16, 2), kind.layers);
    trial.questions = context.scaled(16, 2);
    trial.job.perturb = kind.perturb;
    trial.job.factor = kind.factor;
    trial.job.method.modules = kind.modules;
    trial.job.method.rank = kind.rank;
    trial.job.method.alpha = static_cast<double>(kind.rank);
    trial.job.epsilon = 1e-2;
    trial.arithmetic = Arithmetic::kFloat;
    const auto worth = worth_of(study, trial);
    if (!worth) return worth.error();
    const double each = worth->seconds / static_cast<double>(trial.job.directions);
    report.rows.push_back({fmt::format("best step along one direction: {}", kind.what), "-",
                           fmt::format("{:.2g} nats, {:.0f} numbers, {:.3f} s a direction",
                                       worth->decrease, worth->elements, each),
                           fmt::format("{:.2g} nats a second", worth->decrease / each)});
    context.tell(report.rows.back().what + ": " + report.rows.back().measured);
  }
  return {};
}

Result<RecipeReport> run(const RecipeContext& context) {
  RecipeReport report;
  tune::ChoiceStudyOptions options;
  options.model = context.model;
  options.data = context.data + "/classification";
  options.threads = context.pool.size();
  options.training = 16;
  options.test = 16;
  auto study = tune::ChoiceStudy::open(options);
  if (!study && study.error().code == ErrorCode::kNotFound) {
    report.skipped = study.error().text();
    return report;
  }
  if (!study) return study.error();
  HONE_RETURN_IF_ERROR(agreement(context, **study, report));
  HONE_RETURN_IF_ERROR(worths(context, **study, report));
  report.notes = {
      "16 questions of SST-2, at the model itself; the best step along a direction is d^2 / (2 c) "
      "with its derivative d and its curvature c, the median over 16 directions",
      "several directions share the value's pass: layers below the lowest that moves run once"};
  return report;
}

}  // namespace

const Recipe& forward_defaults_recipe() {
  static const Recipe kRecipe{
      "forward-defaults", "no paper: the experiments behind `hone tune --method zo`",
      "tangents are exact in 8 bits; factors from inputs and the last layers pay",
      "SmolLM2-135M on SST-2", run};
  return kRecipe;
}

}  // namespace hone::recipes

// MeZO: a model learns a classification task from forward passes alone, beside LoRA by gradients.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>

#include "recipes/recipe.h"
#include "tune/choice_study.h"

namespace hone::recipes {
namespace {

// Low-rank directions with the inputs' leading ones as the fixed factor, in the last layers.
tune::ChoiceRun forward_run(const RecipeContext& context) {
  tune::ChoiceRun run;
  run.job.method.method = "zo";
  run.job.method.modules = "o,down";
  run.job.method.rank = 16;
  run.job.method.alpha = 16;
  run.job.directions = 8;
  run.job.layers = "4";
  run.rate = 1e-2;
  run.schedule = "linear";
  run.steps = context.scaled(250, 2);
  return run;
}

// What the paper does to an adapter: pairs of losses, one direction a step through A and B of q and
// v, at the rate and distance of its table (appendix E.3, small models scaled up as its issues
// say).
tune::ChoiceRun published_run(const RecipeContext& context) {
  tune::ChoiceRun run = forward_run(context);
  run.job.perturb = "lora";
  run.job.probe = "pair";
  run.job.noise = "gaussian";
  run.job.method.modules = "q,v";
  run.job.method.rank = 8;
  run.job.directions = 1;
  run.job.layers = "all";
  run.job.epsilon = 1e-2;
  run.rate = 1e-3;
  run.schedule = "constant";
  return run;
}

tune::ChoiceRun gradient_run(const RecipeContext& context) {
  tune::ChoiceRun run;
  run.job.method.method = "lora";
  run.job.method.rank = 8;
  run.job.method.alpha = 16;
  run.rule = "adamw";
  run.settings = "";
  run.rate = 5e-4;
  run.schedule = "linear";
  run.steps = context.scaled(120, 2);
  run.clip = 1;
  return run;
}

struct Seeds {
  std::vector<double> accuracies;
  double seconds = 0;  // of a step
  double bytes = 0;
  double mean() const {
    double sum = 0;
    for (const double each : accuracies) sum += each;
    return sum / static_cast<double>(accuracies.size());
  }
  std::string text() const {
    const auto [least, most] = std::ranges::minmax(accuracies);
    return fmt::format("{:.3f} ({:.3f} to {:.3f}, {} seeds), {:.2f} s a step", mean(), least, most,
                       accuracies.size(), seconds);
  }
};

Result<Seeds> over_seeds(const RecipeContext& context, tune::ChoiceStudy& study,
                         tune::ChoiceRun run, std::int64_t seeds, std::string_view name) {
  run.seed = context.seed;
  const auto outcomes =
      study.tune_seeds(run, seeds, [&](std::uint64_t seed, const tune::ChoiceOutcome& outcome) {
        context.tell(fmt::format("{}, seed {}: {:.3f}", name, seed, outcome.test.accuracy));
      });
  if (!outcomes) return outcomes.error();
  Seeds out;
  for (const auto& each : *outcomes) out.accuracies.push_back(each.test.accuracy);
  out.seconds = outcomes->back().seconds / static_cast<double>(run.steps);
  out.bytes = outcomes->back().planned_bytes;
  return out;
}

Result<RecipeReport> run(const RecipeContext& context) {
  RecipeReport report;
  tune::ChoiceStudyOptions options;
  options.model = context.model;
  options.data = context.data + "/classification";
  options.threads = context.pool.size();
  options.training = context.scaled(1000, 32);
  options.test = context.scaled(872, 32);
  auto study = tune::ChoiceStudy::open(options);
  if (!study && study.error().code == ErrorCode::kNotFound) {
    report.skipped = study.error().text();
    return report;
  }
  if (!study) return study.error();
  const auto base = (*study)->baselines();
  if (!base) return base.error();
  const std::int64_t seeds = context.seeds_of(5);
  const auto gradient = over_seeds(context, **study, gradient_run(context), seeds, "LoRA");
  if (!gradient) return gradient.error();
  const auto forward = over_seeds(context, **study, forward_run(context), seeds, "forward");
  if (!forward) return forward.error();
  const auto published = over_seeds(context, **study, published_run(context), 1, "MeZO");
  if (!published) return published.error();
  const double gained = forward->mean() - base->zero_shot;
  const double most = gradient->mean() - base->zero_shot;
  report.rows = {
      {"zero-shot accuracy", "0.588 (OPT-13B)", fmt::format("{:.3f}", base->zero_shot), "chance"},
      {"prompt with the median as threshold", "-", fmt::format("{:.3f}", base->median), "baseline"},
      {"linear probe, last state", "0.934 (OPT-13B)", fmt::format("{:.3f}", base->probe),
       "baseline"},
      {"LoRA by gradients", "0.920 (OPT-13B, full)", gradient->text(), "baseline"},
      checked("forward passes: at least half of what gradients gain", "0.914 (OPT-13B)",
              fmt::format("{}; {:.0f} % of the gain", forward->text(), 100 * gained / most),
              gained >= 0.5 * most),
      {"MeZO as published, the same steps", "20,000 steps", published->text(), "too few steps"},
      checked("memory beside the weights, gradients over forward", "12 (whole process)",
              fmt::format("{:.1f}", gradient->bytes / forward->bytes),
              gradient->bytes > 4 * forward->bytes)};
  report.notes = {
      "SmolLM2-135M as Q4_1 instead of OPT-13B in 16 bits; 1,000 training and 872 test sentences "
      "of "
      "SST-2 in the paper's prompt, loss over the two label words",
      "directions are derivatives (no epsilon), eight a step, in B of the last four layers, A the "
      "leading directions of the layers' own inputs; the published form is in a row of its own",
      "gradients reach more in fewer steps wherever their activations fit"};
  return report;
}

}  // namespace

const Recipe& mezo_recipe() {
  static const Recipe kRecipe{
      "mezo",
      "Fine-Tuning Language Models with Just Forward Passes (Malladi et al. 2023, 2305.17333)",
      "zeroth-order tuning comes near gradients in the memory of inference",
      "SST-2 on SmolLM2-135M, five seeds, 250 steps", run};
  return kRecipe;
}

}  // namespace hone::recipes

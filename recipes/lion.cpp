// Lion against AdamW on a small language model: loss, memory, and time of an update.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/timing.h"
#include "recipes/recipe.h"
#include "tune/small_training.h"

namespace hone::recipes {
namespace {

struct Trial {
  std::string_view rule, settings;
  double rate = 0, decay = 0;
  double loss = 0;  // nats a byte on what was held out
};

constexpr std::string_view kLanguageBetas = "beta1=0.95,beta2=0.98";  // Chen et al. 2023, section 5
constexpr std::int64_t kSteps = 1000;
constexpr double kDecay = 0.1;  // AdamW's

tune::SmallModelOptions model_options() {
  tune::SmallModelOptions options;
  options.layers = 2;
  options.hidden = 64;
  options.feed_forward = 192;
  options.length = 32;
  return options;
}

Status train(const RecipeContext& context, const tune::ByteText& text, Trial& trial) {
  tune::SmallRun training{model_options(), trial.rule, trial.settings};
  training.schedule = {optim::ScheduleKind::kCosine, trial.rate, context.scaled(kSteps, 4)};
  training.schedule.warmup_steps = training.schedule.steps / 20;
  training.decay = trial.decay;
  training.held_out_batches = context.scaled(32, 2);
  training.seed = context.seed;
  const auto loss = tune::trained_loss(context.pool, text, training);
  if (!loss) return loss.error();
  trial.loss = *loss;
  context.tell(fmt::format("{} rate {:g} decay {:g}: held-out loss {:.4f}", trial.rule, trial.rate,
                           trial.decay, trial.loss));
  return {};
}

std::string text_of(const Trial& trial) {
  return fmt::format("{:.4f} (rate {:g}, decay {:g})", trial.loss, trial.rate, trial.decay);
}

const Trial& best_of(const std::vector<Trial>& trials) {
  return *std::ranges::min_element(trials, {}, [](const Trial& trial) {
    return std::isfinite(trial.loss) ? trial.loss : HUGE_VAL;
  });
}

struct Costs {
  std::int64_t adamw_bytes = 0, lion_bytes = 0;
  double gradient = 0, adamw = 0, lion = 0;  // seconds, medians
};

// Gradients, an AdamW update and a Lion update in turn, so that noise hits all three alike.
Result<Costs> measure(const RecipeContext& context, const tune::ByteText& text) {
  auto model = tune::SmallModel::make(context.pool, model_options(), context.seed);
  if (!model) return model.error();
  const auto stepper = [&](const char* name) {
    const optim::UpdateRule& rule = *optim::find_rule(name);
    return tune::Stepper(model->network(), model->trained(), rule, optim::Settings(rule.defaults));
  };
  tune::Stepper adamw = stepper("adamw"), lion = stepper("lion");
  std::vector<double> gradient_seconds, adamw_seconds, lion_seconds;
  const std::int64_t rounds = context.scaled(200, 5);
  for (std::int64_t round = 0; round <= rounds; ++round) {
    const double begin = seconds_now();
    const auto outcome = model->gradients(text, round, {});
    if (!outcome) return outcome.error();
    const double middle = seconds_now();
    adamw.step(outcome->gradients, 1e-6, kDecay);
    const double later = seconds_now();
    lion.step(outcome->gradients, 1e-6, kDecay);
    const double end = seconds_now();
    if (round == 0) continue;  // compiles
    gradient_seconds.push_back(middle - begin);
    adamw_seconds.push_back(later - middle);
    lion_seconds.push_back(end - later);
  }
  return Costs{adamw.state_bytes(), lion.state_bytes(), median(gradient_seconds),
               median(adamw_seconds), median(lion_seconds)};
}

Result<RecipeReport> run(const RecipeContext& context) {
  RecipeReport report;
  const tune::ByteText text = tune::grammar_text(context.seed, 400'000);
  std::vector<Trial> adamw, lion;
  for (const double rate : {1e-3, 2e-3, 4e-3}) {
    adamw.push_back({"adamw", "beta2=0.99", rate, kDecay});
    HONE_RETURN_IF_ERROR(train(context, text, adamw.back()));
  }
  const Trial& best = best_of(adamw);
  for (const double factor : {3.0, 5.0, 10.0}) {
    lion.push_back({"lion", kLanguageBetas, best.rate / factor, best.decay * factor});
    HONE_RETURN_IF_ERROR(train(context, text, lion.back()));
  }
  const Trial& found = best_of(lion);
  const double change = 100 * (found.loss / best.loss - 1);
  report.rows.push_back({"AdamW, best of three rates: held-out loss, nats a byte", "",
                         text_of(best), "the baseline"});
  report.rows.push_back(checked("Lion, rate 3-10x smaller and decay as much larger: held-out loss",
                                "AdamW's or better; here: within 1 %",
                                fmt::format("{}, {:+.2f} %", text_of(found), change), change <= 1));
  for (const Trial& trial : lion) {
    report.rows.push_back({fmt::format("Lion at 1/{:.0f} of AdamW's rate", best.rate / trial.rate),
                           "3x to 10x", text_of(trial), &trial == &found ? "the best" : ""});
  }
  const auto costs = measure(context, text);
  if (!costs) return costs.error();
  const double bytes =
      static_cast<double>(costs->lion_bytes) / static_cast<double>(costs->adamw_bytes);
  report.rows.push_back(checked("bytes of state, Lion to AdamW", "0.5",
                                fmt::format("{:.3f}", bytes), std::abs(bytes - 0.5) < 0.01));
  report.rows.push_back(
      checked("time of an update, Lion to AdamW", "less",
              fmt::format("{:.2f} ({:.0f} and {:.0f} us)", costs->lion / costs->adamw,
                          1e6 * costs->lion, 1e6 * costs->adamw),
              costs->lion < costs->adamw));
  const double step = (costs->gradient + costs->lion) / (costs->gradient + costs->adamw);
  report.rows.push_back({"time of a whole step, Lion to AdamW", "0.85 to 0.98",
                         fmt::format("{:.3f}", step),
                         step <= 0.98 ? "reproduced" : "weaker: updates are a small part here"});
  report.notes.push_back(fmt::format(
      "a byte-level Llama of {} parameters on text by a grammar, {} steps of 256 bytes, cosine "
      "schedule, clipped to 1, one seed; times are medians of interleaved updates",
      tune::SmallModel::make(context.pool, model_options(), 1)->network().parameters(),
      context.scaled(kSteps, 4)));
  return report;
}

}  // namespace

const Recipe& lion_recipe() {
  static const Recipe kRecipe{
      "lion", "Symbolic Discovery of Optimization Algorithms (Chen et al. 2023, arXiv 2302.06675)",
      "Lion reaches AdamW's loss with half of the state, at a 3-10x smaller rate and larger decay",
      "byte-level Llama of 0.1 M parameters, 1,000 steps, three rates each", run};
  return kRecipe;
}

}  // namespace hone::recipes

// Beyond Outliers: models of one loss by different optimizers, rounded to 4 bits: who loses most,
// and what foretells it.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>

#include "recipes/recipe.h"
#include "tune/correlation.h"
#include "tune/rounding_study.h"

namespace hone::recipes {
namespace {

struct Optimizer {
  const char* rule;
  double rate;  // in the middle; a half and twice as much beside it
};
constexpr std::array kOptimizers = {Optimizer{"adamw", 2e-3}, Optimizer{"lion", 4e-4},
                                    Optimizer{"muon", 2e-3}, Optimizer{"shampoo", 2e-3},
                                    Optimizer{"soap", 2e-3}};
constexpr std::array kFactors = {0.5, 1.0, 2.0};
constexpr double kTarget = 1.3;  // nats a byte, where every training stops

void compare(const RecipeContext& context, const std::vector<tune::RoundedModel>& used,
             RecipeReport& report) {
  std::vector<double> gained;
  for (const tune::RoundedModel& each : used) gained.push_back(each.probe.loss_gained);
  const auto add = [&](const char* what, const char* published, auto metric) {
    std::vector<double> values;
    for (const tune::RoundedModel& each : used) values.push_back(metric(each));
    const auto found = tune::resampled_correlation(values, gained, context.seed);
    report.rows.push_back({fmt::format("rank correlation of {} with the loss gained", what),
                           published, found.text(), ""});
    return std::abs(found.value);
  };
  const double r = add("R_L", "-0.89 (accuracy)", [](const auto& c) { return c.last(); });
  const double mmr =
      add("max to median", "0.62 (accuracy)", [](const auto& c) { return c.probe.max_to_median; });
  add("kurtosis", "0.70 (accuracy)", [](const auto& c) { return c.probe.kurtosis; });
  report.rows.push_back(checked("R_L foretells better than the largest activations", "yes",
                                fmt::format("{:.2f} against {:.2f}", r, mmr), r > mmr));
}

Result<RecipeReport> run(const RecipeContext& context) {
  RecipeReport report;
  auto text = tune::read_byte_text(context.data + "/classification/halo-sql-valid.jsonl");
  if (!text) {
    text = tune::grammar_text(1, 400000);
    report.notes.push_back("the SQL set is absent: text of a grammar instead");
  }
  const tune::RoundingStudy study{context.pool, *text,        {4, 96, 256, 8, 64, true},
                                  {4, 4},       context.seed, context.scaled(12, 1)};
  std::vector<tune::RoundedModel> all, used;
  for (const Optimizer& optimizer : kOptimizers) {
    for (const double factor : kFactors) {
      tune::SmallTraining how;
      how.rule = optimizer.rule;
      how.learning_rate = optimizer.rate * factor;
      how.steps = context.scaled(500, 2);
      how.decays = false;
      how.target = kTarget;
      auto made = study.round_after(how);
      if (!made) return made.error();
      context.tell(fmt::format("{} {:.1e}: {} steps, loss {:.3f}, 4 bits {:+.3f}, R_L {:.3f}",
                               how.rule, how.learning_rate, made->steps, made->probe.loss,
                               made->probe.loss_gained, made->last()));
      all.push_back(*std::move(made));
      if (all.back().reached) used.push_back(all.back());
    }
  }
  if (used.size() < 4) used = all;  // a short run: losses differ, and so do the rest
  std::map<std::string_view, double> mean;
  for (const Optimizer& optimizer : kOptimizers) {
    double gained = 0, last = 0, gain = 0, ratio = 0, clean = 0, count = 0, qat = 0;
    for (const tune::RoundedModel& each : used) {
      if (each.how.rule != optimizer.rule) continue;
      gained += each.probe.loss_gained, last += each.last(), gain += each.probe.gain();
      ratio += each.probe.max_to_median, clean += each.probe.loss, ++count;
      if (each.how.learning_rate != optimizer.rate) continue;
      const auto loss = study.loss_of_aware(each);
      if (!loss) return loss.error();
      qat = *loss - each.probe.loss;
    }
    if (count == 0) continue;
    mean[optimizer.rule] = gained / count;
    report.rows.push_back(
        {fmt::format("{} ({:.0f} models)", optimizer.rule, count), "",
         fmt::format("loss {:.3f}, W4A4 {:+.3f} (QAT {:+.3f}), R_L {:.3f}, gain "
                     "{:.2f}, max to median {:.1f}",
                     clean / count, gained / count, qat, last / count, gain / count, ratio / count),
         ""});
  }
  compare(context, used, report);
  const auto best =
      std::ranges::min_element(mean, {}, [](const auto& each) { return each.second; });
  report.rows.push_back(
      checked("loses least", "shampoo", std::string(best->first), best->first == "shampoo"));
  report.rows.push_back(checked("AdamW and Shampoo lose less than Muon",
                                "accuracies 59.2 and 59.3 against 50.0",
                                fmt::format("{:+.3f} and {:+.3f} against {:+.3f}", mean["adamw"],
                                            mean["shampoo"], mean["muon"]),
                                std::max(mean["adamw"], mean["shampoo"]) < mean["muon"]));
  report.notes.push_back(fmt::format(
      "every training stops at a running loss of {} nats a byte; {} of {} got there", kTarget,
      std::ranges::count(all, true, &tune::RoundedModel::reached), all.size()));
  report.notes.push_back(
      "the paper trains 50 M to 1.5 B parameters and measures zero-shot accuracy; here 0.4 M, and "
      "the held-out loss of bytes; Lion stands for Scion, PSGD is left out");
  return report;
}

}  // namespace

const Recipe& beyond_outliers_recipe() {
  static const Recipe kRecipe{
      "beyond-outliers", "Beyond Outliers: optimizers under quantization (arXiv 2509.23500)",
      "error that propagates, not the largest activation, foretells what rounding costs",
      "15 byte models of 0.4 M parameters at one loss, five optimizers, W4A4 to nearest and QAT",
      run};
  return kRecipe;
}

}  // namespace hone::recipes

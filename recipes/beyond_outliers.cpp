// Beyond Outliers: models of one loss by different optimizers, rounded to 4 bits: who loses most,
// and what foretells it.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>

#include "passes/transform/qat.h"
#include "recipes/recipe.h"
#include "tune/block_probe.h"
#include "tune/correlation.h"
#include "tune/small_training.h"

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

struct Checkpoint {
  std::string rule;
  double rate = 0;
  tune::RoundingProbe probe;
  std::size_t steps = 0;
  bool reached = false;
  double last() const { return probe.blocks.back().total; }  // R_L
};

Result<Checkpoint> train(const RecipeContext& context, const tune::ByteText& text,
                         const Optimizer& optimizer, double factor) {
  tune::SmallModelOptions size;
  size.layers = 4;
  size.hidden = 96;
  size.feed_forward = 256;
  size.head_norms = true;
  auto model = tune::SmallModel::make(context.pool, size, context.seed);
  if (!model) return model.error();
  tune::SmallTraining how;
  how.rule = optimizer.rule;
  how.learning_rate = optimizer.rate * factor;
  how.steps = context.scaled(500, 2);
  how.decays = false;
  how.target = kTarget;
  const auto curve = train_small(*model, text, {}, how);
  if (!curve) return curve.error();
  passes::QatOptions four;
  four.weight_bits = four.activation_bits = 4;
  auto probe = probe_rounding(*model, text, four, context.scaled(12, 1));
  if (!probe) return probe.error();
  return Checkpoint{optimizer.rule, how.learning_rate, *std::move(probe), curve->losses.size(),
                    curve->reached};
}

void compare(const RecipeContext& context, const std::vector<Checkpoint>& used,
             RecipeReport& report) {
  std::vector<double> gained;
  for (const Checkpoint& each : used) gained.push_back(each.probe.loss_gained);
  const auto add = [&](const char* what, const char* published, auto metric) {
    std::vector<double> values;
    for (const Checkpoint& each : used) values.push_back(metric(each));
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
  std::vector<Checkpoint> all, used;
  for (const Optimizer& optimizer : kOptimizers) {
    for (const double factor : kFactors) {
      auto made = train(context, *text, optimizer, factor);
      if (!made) return made.error();
      context.tell(fmt::format("{} {:.1e}: {} steps, loss {:.3f}, 4 bits {:+.3f}, R_L {:.3f}",
                               made->rule, made->rate, made->steps, made->probe.loss,
                               made->probe.loss_gained, made->last()));
      all.push_back(*std::move(made));
      if (all.back().reached) used.push_back(all.back());
    }
  }
  if (used.size() < 4) used = all;  // a short run: losses differ, and so do the rest
  std::map<std::string, double> least;
  for (const Optimizer& optimizer : kOptimizers) {
    double gained = 0, last = 0, gain = 0, ratio = 0, clean = 0, count = 0;
    for (const Checkpoint& each : used) {
      if (each.rule != optimizer.rule) continue;
      gained += each.probe.loss_gained, last += each.last(), gain += each.probe.gain();
      ratio += each.probe.max_to_median, clean += each.probe.loss, ++count;
    }
    if (count == 0) continue;
    least[optimizer.rule] = gained / count;
    report.rows.push_back(
        {fmt::format("{} ({:.0f} models)", optimizer.rule, count), "",
         fmt::format("loss {:.3f}, W4A4 {:+.3f}, R_L {:.3f}, gain {:.2f}, max to median {:.1f}",
                     clean / count, gained / count, last / count, gain / count, ratio / count),
         ""});
  }
  compare(context, used, report);
  const auto [best, worst] =
      std::ranges::minmax_element(least, {}, &std::pair<const std::string, double>::second);
  report.rows.push_back(checked("loses least", "shampoo", best->first, best->first == "shampoo"));
  report.rows.push_back(checked("loses most", "muon", worst->first, worst->first == "muon"));
  report.notes.push_back(
      fmt::format("every training stops at a running loss of {} nats a byte; {} of {} got there",
                  kTarget, std::ranges::count(all, true, &Checkpoint::reached), all.size()));
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
      "15 byte models of 0.4 M parameters at one loss, five optimizers, W4A4 to nearest", run};
  return kRecipe;
}

}  // namespace hone::recipes

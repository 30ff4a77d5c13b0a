// QZO: the quantization scales alone are tuned, by forward passes, with the derivative clipped.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <cmath>
#include <filesystem>

#include "base/sha256.h"
#include "quant/scales.h"
#include "recipes/recipe.h"
#include "tune/choice_study.h"

namespace hone::recipes {
namespace {

// Of everything but the scales.
std::string hash_of_codes(const engine::ModelSource& model) {
  Sha256 hash;
  for (const formats::TensorRecord& tensor : model.tensors()) {
    std::vector<std::byte> bytes(tensor.data.begin(), tensor.data.end());
    quant::clear_scales(tensor.dtype, bytes);
    hash.add(bytes);
  }
  return hash.finish();
}

struct Trial {
  const char *name, *view;
  double clip;  // of the derivative; 0: none
};

constexpr double kClip = 6;  // of a derivative by relative changes of the scales
constexpr double kRate = 5e-3;

tune::ChoiceRun run_of(const Trial& trial, const RecipeContext& context) {
  tune::ChoiceRun run;
  run.job.method.method = "zo";
  run.job.method.view = trial.view;
  run.job.perturb = "scale";
  run.job.directions = 1;
  run.job.layers = "all";
  run.job.derivative_clip = trial.clip;
  run.rate = kRate;
  run.steps = context.scaled(250, 2);
  run.seed = context.seed;
  return run;
}

// The trained factors as a file, and the loss of the file beside that of the factors.
struct Written {
  double gap = 0;           // nats
  bool same_codes = false;  // and size
};
Result<Written> write_and_compare(tune::ChoiceStudy& study, const tune::ChoiceOutcome& outcome) {
  const std::string path = (std::filesystem::temp_directory_path() / "hone-qzo.gguf").string();
  HONE_RETURN_IF_ERROR(tune::write_model(*outcome.trained, study.session(), path));
  Written written;
  std::error_code ignored;
  engine::SessionOptions how;
  how.threads = study.options().threads;
  how.context = 64;
  auto after = engine::Session::open(path, how);
  if (!after) return after.error();
  const engine::ModelSource& before = study.session().source();
  written.same_codes = (*after)->source().file_bytes() == before.file_bytes() &&
                       hash_of_codes((*after)->source()) == hash_of_codes(before);
  // In f32 arithmetic, so that rounded activations do not hide what rounded scales do.
  constexpr auto kExact = engine::Arithmetic::kFloat;
  const auto of_file = study.score(**after, nullptr, kExact);
  const auto of_factors = study.score(study.session(), outcome.trained.get(), kExact);
  std::filesystem::remove(path, ignored);
  if (!of_file) return of_file.error();
  if (!of_factors) return of_factors.error();
  written.gap = std::abs(of_file->loss - of_factors->loss);
  return written;
}

Result<RecipeReport> run(const RecipeContext& context) {
  RecipeReport report;
  tune::ChoiceStudyOptions options{context.model, context.data + "/classification"};
  options.threads = context.pool.size();
  options.training = context.scaled(1000, 16);
  options.test = context.scaled(400, 16);
  auto opened = tune::ChoiceStudy::open(options);
  if (!opened) report.skipped = opened.error().text();
  if (!opened) return report;
  tune::ChoiceStudy& study = **opened;
  const auto baselines = study.baselines();
  if (!baselines) return baselines.error();
  double planned = 0;  // bytes, of the first
  constexpr Trial kTrials[] = {{"tied, clipped", "tied", kClip},
                               {"tied, not clipped", "tied", 0},
                               {"scale alone, clipped", "scale", kClip}};
  for (const Trial& trial : kTrials) {
    const tune::ChoiceRun how = run_of(trial, context);
    auto outcome = study.tune(how);
    if (!outcome) return outcome.error().in(trial.name);
    const bool finite = std::isfinite(outcome->test.loss) && outcome->skipped == 0;
    report.rows.push_back(
        {fmt::format("accuracy, {}", trial.name),
         trial.clip > 0 ? "58.5 to 90.0 % (Llama-2-7B)" : "not finite at step 22",
         fmt::format(
             "{:.1f} to {:.1f} %, loss {:.3f}; clipped {:.0f} % of steps",
             100 * baselines->zero_shot, 100 * outcome->test.accuracy, outcome->test.loss,
             100.0 * static_cast<double>(outcome->clipped) / static_cast<double>(how.steps)),
         trial.clip == 0 ? (finite ? "not reproduced: it stays finite" : "reproduced")
         : outcome->test.accuracy > baselines->zero_shot + 0.05 ? "reproduced"
                                                                : "weaker"});
    context.tell(fmt::format("{}: {}", trial.name, report.rows.back().measured));
    if (planned == 0) {
      planned = outcome->planned_bytes;
      const auto written = write_and_compare(study, *outcome);
      if (!written) return written.error();
      report.rows.push_back(checked("codes before and after", "unchanged",
                                    written->same_codes ? "the same hash" : "another hash",
                                    written->same_codes));
      report.rows.push_back(checked("loss of the file in f16 against factors in f32", "",
                                    fmt::format("{:.1e} nats", written->gap),
                                    written->gap <= 1e-4));
    }
  }
  // AdamW on weights in 16 bits with states and gradients in f32 (2 + 4 + 4 + 4 bytes a number),
  // against what the process holds here; activations count in both as planned here.
  double numbers = 0;
  for (const auto& tensor : study.session().source().tensors()) {
    numbers += static_cast<double>(tensor.elements());
  }
  const double here = planned + static_cast<double>(study.session().source().file_bytes());
  report.rows.push_back({"memory against full tuning in 16 bits with AdamW",
                         "more than 18 times less",
                         fmt::format("{:.1f} times ({:.0f} MB; {:.0f} MB by count)",
                                     14 * numbers / here, here / 1e6, 14 * numbers / 1e6),
                         14 * numbers / here > 18 ? "reproduced" : "weaker"});
  report.notes.push_back(fmt::format(
      "medians without tuning: {:.1f} % by the training median, {:.1f} % by a linear probe",
      100 * baselines->median, 100 * baselines->probe));
  return report;
}

}  // namespace

const Recipe& qzo_recipe() {
  static const Recipe kRecipe{
      "qzo", "QZO: fine-tuning quantized networks by forward passes (arXiv 2505.13430)",
      "the scales of a 4-bit model, perturbed and clipped, are enough to tune it without backward",
      "SST-2 as MeZO asks it, 1,000 examples, SmolLM2-135M Q4_1, 250 steps of 16", run};
  return kRecipe;
}

}  // namespace hone::recipes

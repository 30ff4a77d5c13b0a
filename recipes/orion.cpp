// Orion: a program compiled once, weights patched between steps, adapters as inputs, exact resume.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <cmath>
#include <filesystem>

#include "base/system.h"
#include "base/timing.h"
#include "recipes/recipe.h"
#include "tune/setup.h"

namespace hone::recipes {
namespace {

engine::SessionOptions session_options(const RecipeContext& context) {
  engine::SessionOptions how;
  how.threads = context.pool.size();
  how.context = 64;
  return how;
}

Result<tune::TrainingSetup> start(const RecipeContext& context,
                                  std::span<const tune::Example> examples) {
  return tune::make_setup(context.model, session_options(context),
                          {"lora", "q,v", 16, 16, context.seed},
                          tune::plain_options("adamw", 3e-4, 2), examples);
}

Status run_steps(tune::TrainingSetup& setup, int count) {
  for (int i = 0; i < count; ++i) {
    if (auto step = setup.trainer->step(); !step) return step.error();
  }
  return {};
}

// What a step costs where weights are part of the program: everything made anew.
Result<double> seconds_of_relowering(const RecipeContext& context) {
  std::vector<double> seconds;
  for (int i = 0; i < 3; ++i) {
    const double begin = seconds_now();
    auto session = engine::Session::open(context.model, session_options(context));
    if (!session) return session.error();
    HONE_RETURN_IF_ERROR((*session)->prepare(64, 2, 2));
    seconds.push_back(seconds_now() - begin);
  }
  return median(seconds);
}

Result<double> seconds_of_patching(engine::Session& session) {
  const formats::TensorRecord* tensor = session.source().find("blk.0.ffn_down.weight");
  HONE_RETURN_IF_ERROR(session.prepare(64, 2, 2));
  std::vector<double> seconds;
  for (int i = 0; i < 9 && tensor != nullptr; ++i) {
    const double begin = seconds_now();
    HONE_RETURN_IF_ERROR(session.weights().patch(tensor->name, tensor->data));
    seconds.push_back(seconds_now() - begin);
  }
  return median(seconds);
}

// Stops in the middle, goes on from the state, and compares with not stopping.
Result<bool> resumes_exactly(const RecipeContext& context,
                             std::span<const tune::Example> examples) {
  auto straight = start(context, examples);
  auto first = start(context, examples);
  auto second = start(context, examples);
  if (!straight || !first || !second) return straight ? first.error() : straight.error();
  HONE_RETURN_IF_ERROR(run_steps(*straight, 6));
  HONE_RETURN_IF_ERROR(run_steps(*first, 3));
  const std::string path = (std::filesystem::temp_directory_path() / "hone-orion.hone").string();
  HONE_RETURN_IF_ERROR(tune::write_checkpoint(path, 3, "{}", first->trainer->state()));
  const auto checkpoint = tune::Checkpoint::open(path);
  std::filesystem::remove(path);
  if (!checkpoint) return checkpoint.error();
  HONE_RETURN_IF_ERROR(second->trainer->restore(*checkpoint));
  HONE_RETURN_IF_ERROR(run_steps(*second, 3));
  return second->trainer->hash() == straight->trainer->hash();
}

Result<RecipeReport> run(const RecipeContext& context) {
  RecipeReport report;
  const auto opened = engine::ModelSource::open(context.model);
  if (!opened) {
    report.skipped = "the model is absent: " + opened.error().what;
    return report;
  }
  const auto examples = tune::random_examples(16, 32, 500, 3);
  auto tuning = start(context, examples);
  if (!tuning) return tuning.error();
  const std::int64_t steps = context.scaled(1000, 4);
  std::int64_t broken = 0, compiled_first = 0, resident_early = 0;
  std::vector<double> seconds;
  for (std::int64_t i = 0; i < steps; ++i) {
    auto step = tuning->trainer->step();
    if (!step) return step.error();
    if (step->skipped || !std::isfinite(step->loss)) ++broken;
    if (i == 0) compiled_first = tuning->trainer->compiled_programs();
    if (i == steps / 4) resident_early = resident_memory().current;
    if (i > 0) seconds.push_back(step->seconds);
    if (i % 100 == 0) context.tell(fmt::format("step {} of {}: loss {:.4f}", i, steps, step->loss));
  }
  const std::int64_t grown = resident_memory().current - resident_early;
  report.rows.push_back(checked(fmt::format("losses that are not finite in {} steps", steps),
                                "0 of 1000", fmt::format("{}", broken), broken == 0));
  const std::int64_t later = tuning->trainer->compiled_programs() - compiled_first;
  report.rows.push_back(
      checked("programs compiled after the first step", "0", fmt::format("{}", later), later == 0));
  report.rows.push_back(checked("memory gained in the last three quarters of the run", "stable",
                                fmt::format("{} kB", grown / 1024), grown < (4 << 20)));

  const auto whole = seconds_of_relowering(context);
  if (!whole) return whole.error();
  const auto patch = seconds_of_patching(*tuning->session);
  if (!patch) return patch.error();
  const double step_seconds = median(seconds);
  report.rows.push_back({"changing one matrix against compiling and packing anew", "8.5x cheaper",
                         fmt::format("{:.0f}x cheaper ({:.2f} ms, {:.0f} ms)", *whole / *patch,
                                     1e3 * *patch, 1e3 * *whole),
                         *whole / *patch >= 8.5 ? "reproduced" : "weaker"});
  const double ratio = (step_seconds + *whole) / step_seconds;
  report.rows.push_back({"a training step against one that compiles each time", "3.8x",
                         fmt::format("{:.1f}x ({:.0f} ms a step)", ratio, 1e3 * step_seconds),
                         ratio >= 3.8 ? "reproduced" : "weaker"});

  const auto same = resumes_exactly(context, examples);
  if (!same) return same.error();
  report.rows.push_back(checked("resumed run against one that did not stop", "25 of 25 resumed",
                                *same ? "the same bits" : "other bits", *same));
  report.notes.push_back(
      "Orion compiles for a neural engine, where a compilation takes seconds; here a program is "
      "compiled in milliseconds and packing the weights is what a full compile costs");
  report.notes.push_back("LoRA r = 16 on q and v, two sequences of 32 tokens a step, AdamW 3e-4");
  return report;
}

}  // namespace

const Recipe& orion_recipe() {
  static const Recipe kRecipe{
      "orion", "Orion: on-device training without recompilation (arXiv 2603.06728)",
      "weights are patched into a compiled program instead of compiling again; runs resume exactly",
      "LoRA on SmolLM2-135M Q4_1, 1,000 steps", run};
  return kRecipe;
}

}  // namespace hone::recipes

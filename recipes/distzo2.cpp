// Zeroth-order steps whose weights are streamed, and that several workers share: the same bits.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>

#include "base/human.h"
#include "base/system.h"
#include "base/timing.h"
#include "engine/model_source.h"
#include "recipes/recipe.h"
#include "tune/local_workers.h"
#include "tune/setup.h"

namespace hone::recipes {
namespace {
constexpr std::int64_t kSteps = 50, kBatch = 4, kLength = 32;
constexpr std::int64_t kWindows[] = {54'000'000, 36'000'000};  // the largest matrix is 17.7 MB

struct Setting {
  std::int64_t directions = 1;
  std::int64_t window = -1;  // of streamed weights; -1: all are held
};

struct Trained {
  std::string hash;
  std::vector<double> losses, seconds;
  std::int64_t peak = 0;  // bytes above what the process held before
  engine::StreamStats stream;
};

Result<Trained> train(const RecipeContext& context, const Setting& setting,
                      tune::Workers& workers) {
  Trained out;
  reset_peak_memory();
  const std::int64_t before = resident_memory().current;
  engine::SessionOptions how;
  how.threads = 1;
  how.context = 64;
  how.stream = setting.window;
  tune::MethodOptions method{"lora", "all", 8, 16, context.seed};
  method.fixed_a = true;
  auto options = tune::plain_options("sgd", 1e-2, kBatch);
  options.micro_tokens = kBatch * kLength;
  options.seed = context.seed;
  options.forward.emplace();
  options.forward->directions = setting.directions;
  options.forward->ranks = {workers.rank(), workers.size(),
                            [&](std::span<const double> mine) { return workers.gather(mine); }};
  const auto examples = tune::random_examples(16, kLength, 4096, context.seed);
  auto made = tune::make_setup(context.model, how, method, options, examples);
  if (!made) return made.error();
  const std::int64_t steps = context.scaled(kSteps, 2);
  for (std::int64_t i = 0; i < steps; ++i) {
    const double start = seconds_now();
    const auto step = made->trainer->step();
    if (!step) return step.error();
    out.seconds.push_back(seconds_now() - start);
    out.losses.push_back(step->loss);
  }
  out.hash = made->trainer->hash();
  out.peak = resident_memory().peak - before;
  if (auto* stream = made->session->weights().stream()) out.stream = stream->stats();
  return out;
}

Result<Trained> together(const RecipeContext& context, const Setting& setting) {
  Trained first;
  const Status status = tune::run_together(2, [&](tune::Workers& workers) -> Status {
    auto trained = train(context, setting, workers);
    if (!trained) return trained.error();
    const auto digest = std::hash<std::string>{}(trained->hash);
    if (workers.rank() == 0) first = *std::move(trained);
    return tune::check_same(workers, "the tuned weights", digest);
  });
  if (!status.ok()) return status.error();
  return first;
}

RecipeRow equality(const std::string& what, const Trained& plain, const Trained& other) {
  const bool same = plain.hash == other.hash && plain.losses == other.losses;
  return checked(what + ": losses and tuned weights of all steps", "identical to MeZO's",
                 same ? "the same bits: " + other.hash.substr(0, 12) : "they differ", same);
}

void add_streamed(RecipeReport& report, std::int64_t window, const Trained& plain,
                  const Trained& streamed) {
  const std::string name = "streamed through " + human_bytes(window);
  report.rows.push_back(equality(name, plain, streamed));
  report.rows.push_back(checked(name + ": memory, and with all weights held", "18 GB for 175B",
                                human_bytes(streamed.peak) + ", " + human_bytes(plain.peak),
                                streamed.peak < plain.peak));
  const double loading = std::max(streamed.stream.read_seconds, streamed.stream.pack_seconds);
  const double hidden = 100 * (1 - streamed.stream.wait_seconds / loading);
  const double slower = median(streamed.seconds) / median(plain.seconds);
  report.rows.push_back(
      checked(name + ": loading that is hidden; step to plain step", "nearly all; nearly 1 (ZO2)",
              fmt::format("{:.0f} %; {:.2f}", hidden, slower), hidden >= 80 && slower <= 1.25));
}

// `ideal`: what two workers could gain.
Status add_shared(const RecipeContext& context, RecipeReport& report, const std::string& name,
                  const Trained& plain, const Setting& setting, double ideal) {
  const auto trained = together(context, setting);
  if (!trained) return trained.error();
  const double speedup = median(plain.seconds) / median(trained->seconds);
  report.rows.push_back(equality(name, plain, *trained));
  report.rows.push_back(checked(name + ": speed to one worker",
                                fmt::format("{:.1f} or more of at most {}", 0.8 * ideal, ideal),
                                fmt::format("{:.2f}", speedup), speedup >= 0.8 * ideal));
  if (speedup > 1.05 * ideal) report.rows.back().verdict = "not measured: the machine was busy";
  return {};
}

Result<RecipeReport> run(const RecipeContext& context) {
  RecipeReport report;
  if (!engine::resolve_model(context.model)) return RecipeReport{{}, {}, "the model is absent"};
  const auto solo = tune::alone();
  const auto plain = train(context, {}, *solo);
  if (!plain) return plain.error();
  for (const std::int64_t window : kWindows) {
    const auto streamed = train(context, {1, window}, *solo);
    if (!streamed) return streamed.error();
    add_streamed(report, window, *plain, *streamed);
  }
  const auto two = train(context, {2}, *solo);
  if (!two) return two.error();
  // With a direction each both run the value's pass: two passes for three.
  HONE_RETURN_IF_ERROR(add_shared(context, report, "2 workers, a direction each", *two, {2}, 1.5));
  HONE_RETURN_IF_ERROR(add_shared(context, report, "2 workers, half a batch each", *plain, {}, 2));
  HONE_RETURN_IF_ERROR(add_shared(context, report, "2 streams", *two, {2, kWindows[0]}, 1.5));
  report.notes.push_back(
      fmt::format("{} steps of {} x {} random tokens, LoRA of rank 8 with fixed A, tangents for "
                  "pairs, a thread a worker; over MPI (`mpirun -n 2 hone tune --method zo`) it is "
                  "the same code",
                  plain->losses.size(), kBatch, kLength));
  return report;
}

}  // namespace

const Recipe& distzo2_recipe() {
  static const Recipe kRecipe{
      "distzo2", "DistZO2 (Wang et al. 2025), over ZO2 (arXiv 2503.12668)",
      "streamed and shared zeroth-order steps give the plain run's bits; workers exchange scalars",
      "SmolLM2-135M Q4_1, 50 steps, two windows, two workers", run};
  return kRecipe;
}

}  // namespace hone::recipes

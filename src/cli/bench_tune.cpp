// SPDX-License-Identifier: Apache-2.0
#include "cli/bench_tune.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>

#include "base/human.h"
#include "base/system.h"
#include "cli/tune_report.h"
#include "engine/limits.h"
#include "tune/job.h"
#include "tune/setup.h"

namespace hone::cli {
namespace {

struct Steps {
  std::vector<double> seconds;
  double loss = 0;
};

Result<Steps> run_steps(tune::Trainer& trainer, std::span<const tune::Example> examples,
                        const TuneBench& options, bool profile) {
  Steps out;
  for (std::int64_t i = 0; i <= options.steps; ++i) {
    const auto start = std::chrono::steady_clock::now();
    if (options.method == "forward") {
      auto loss = trainer.evaluate(examples);
      if (!loss) return loss.error();
      out.loss = *loss;
    } else {
      auto report = trainer.step();
      if (!report) return report.error();
      out.loss = report->loss;
    }
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    if (i > 0) out.seconds.push_back(took.count());
    if (i == 0 && profile) trainer.profile(true);
  }
  std::ranges::sort(out.seconds);
  return out;
}

}  // namespace

void declare_tune_bench(TuneBench& options, Arguments& arguments) {
  arguments.choice("--method", options.method,
                   {"lora", "pooled", "dora", "full", "head", "prompt", "scale", "zo", "forward"},
                   "what is trained, for tune");
  arguments.option("--optimizer", options.optimizer, "update rule, for tune", "NAME");
  arguments.option("--batch", options.batch, "sequences a step, for tune", Integers{1, 4096});
  arguments.option("--length", options.length, "tokens of a sequence, for tune",
                   Integers{2, 1 << 20});
  arguments.option("--steps", options.steps, "steps that are counted, for tune",
                   Integers{1, 100000});
  arguments.option("--rank", options.rank, "of adapters, for tune", Integers{1, 1024});
  arguments.choice("--perturb", options.perturb, tune::kPerturbed, "what zo moves, for tune");
  arguments.choice("--probe", options.probe, tune::kProbes, "how zo tries a direction, for tune");
  arguments.option("--layers", options.layers,
                   "that zo moves: all, random, or how many of the last", "WHICH");
  arguments.option("--directions", options.directions, "of zo, for tune", Integers{1, 4096});
  arguments.option("--memory", options.memory, "most bytes of activations kept, for tune", "SIZE");
  arguments.choice("--rounding", options.rounding, {"none", "bf16", "int8"},
                   "of products in f32, for tune");
  arguments.option("--offload", options.offload,
                   "the optimizer's state lies in a file of this folder, for tune", "FOLDER");
  arguments.flag("--update-inside", options.update_inside,
                 "each parameter steps right after its gradient, for tune");
}

Status bench_tune(const TuneBench& options, const ModelOptions& model, bool profile,
                  Output& output) {
  engine::SessionOptions how = session_options(model);
  how.context = 32;
  auto session = engine::Session::open(model.model, how);
  if (!session) return session.error();
  tune::JobOptions job;
  job.method.method = options.method == "forward" ? "lora" : options.method;
  job.method.rank = options.rank;
  job.method.alpha = 2 * static_cast<double>(options.rank);
  job.perturb = options.perturb;
  job.probe = options.probe;
  job.layers = options.layers;
  job.directions = options.directions;
  auto trained = tune::prepare(**session, job.trained_method((*session)->config().layers));
  if (!trained) return trained.error();
  auto rule = optim::rule_named(job.forward_only() ? "sgd" : options.optimizer);
  if (!rule) return rule.error();
  tune::TrainerOptions trainer_options;
  trainer_options.rule = *rule;
  auto settings = optim::Settings::parse(**rule, job.forward_only() ? "momentum=0" : "");
  if (!settings) return settings.error();
  trainer_options.settings = *settings;
  trainer_options.schedule.learning_rate = 1e-4;
  trainer_options.batch = options.batch;
  trainer_options.micro_tokens = options.batch * options.length;
  trainer_options.update_inside = options.update_inside;
  trainer_options.offload = options.offload;
  trainer_options.rounding = tune::rounding_pass(options.rounding);
  trainer_options.compile = (*session)->options().compile;
  const engine::MachineLimits limits = engine::measure_limits((*session)->pool(), 0.2);
  trainer_options.machine = engine::machine_of(limits);
  if (!options.memory.empty()) {
    const auto bytes = bytes_of_text(options.memory);
    if (!bytes) return bytes.error().in("--memory");
    trainer_options.kept_bytes = *bytes;
  }
  if (job.forward_only()) {
    const auto forward = job.forward_options();
    if (!forward) return forward.error();
    trainer_options.forward = *forward;
  }
  const auto examples =
      tune::random_examples(options.batch, options.length, (*session)->config().vocabulary, 1);
  auto trainer = tune::Trainer::create(**session, *trained, examples, trainer_options);
  if (!trainer) return trainer.error();
  auto plan = (*trainer)->plan();
  if (!plan) return plan.error();
  const auto memory = (*trainer)->memory();
  if (!memory) return memory.error();
  const std::int64_t estimated = resident_memory().current + memory->activations + memory->work +
                                 memory->gradients + memory->kept;
  reset_peak_memory();
  const auto steps = run_steps(**trainer, examples, options, profile);
  if (!steps) return steps.error();
  const double seconds = steps->seconds[steps->seconds.size() / 2];
  const double rate = static_cast<double>(options.batch * options.length) / seconds;
  const double share = options.method == "forward" ? 0 : plan->cost.seconds / seconds;
  const std::int64_t peak = resident_memory().peak;
  if (output.json()) {
    Json document{{"method", options.method},
                  {"step_seconds", seconds},
                  {"tokens_per_second", rate},
                  {"peak_bytes", peak},
                  {"estimated_bytes", estimated},
                  {"share_of_limit", share},
                  {"kept_bytes", plan->kept.kept},
                  {"operations_again", plan->kept.again},
                  {"loss", steps->loss}};
    if (profile) {
      for (const auto& [name, each] : (*trainer)->profiled()) {
        document["profile"][name] = each / static_cast<double>(options.steps);
      }
    }
    output.document(document);
    return {};
  }
  output.print(fmt::format(
      "step     {}, {:.0f} tokens/s, {:.0f} % of the limit\n"
      "memory   {} at most, {} planned; {} of activations kept ({} if none were made again)\n",
      human_duration(seconds), rate, 100 * share, human_bytes(peak), human_bytes(estimated),
      human_bytes(plan->kept.kept), human_bytes(plan->kept.kept_before)));
  if (profile) {
    Table table({"kind of step", "seconds", "part"}, "lrr");
    double total = 0;
    for (const auto& [name, each] : (*trainer)->profiled()) total += each;
    for (const auto& [name, each] : (*trainer)->profiled()) {
      table.row({name, fmt::format("{:.4f}", each / static_cast<double>(options.steps)),
                 fmt::format("{:.1f} %", 100 * each / total)});
    }
    output.print(table.text());
  }
  return {};
}

}  // namespace hone::cli

// A tuning job: everything that its options mean, made in order: model, data, what is trained, the
// loop that trains it, within the memory that was granted.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "engine/session.h"
#include "formats/chat_template.h"
#include "formats/tokenizer.h"
#include "tune/data/dataset.h"
#include "tune/judge.h"
#include "tune/trained.h"
#include "tune/trainer.h"
#include "tune/workers.h"

namespace hone::tune {

// What forward passes can move, and how they try it: the values of JobOptions::perturb and probe.
inline constexpr std::string_view kPerturbed[] = {"low-rank", "lora",  "pooled",
                                                  "prompt",   "scale", "full"};
inline constexpr std::string_view kProbes[] = {"tangent", "pair", "one-sided"};

// JobOptions::memory: as little as the method can take.
inline constexpr std::int64_t kLeastMemory = -1;

struct JobOptions {
  std::string model;
  std::string data;
  std::string validation;  // a file of held-out examples; empty: none
  MethodOptions method;
  std::string optimizer;     // empty: adamw; of forward passes sgd without momentum
  std::string settings;      // of the update rule: "beta1=0.9,beta2=0.99"
  double learning_rate = 0;  // 0: the method's default
  std::string schedule = "linear";
  double warmup = 0.05;  // part of the run
  double weight_decay = 0;
  double clip = -1;        // below 0: 1, of forward passes none
  std::int64_t batch = 8;  // examples a step
  double epochs = 3;
  std::int64_t steps = 0;     // instead of epochs, if positive
  std::int64_t length = 512;  // most tokens of an example
  bool everything = false;    // loss on all tokens
  std::uint64_t seed = 1;
  std::int64_t memory = 0;  // most bytes of the whole process; 0: four fifths of what is free
  std::int64_t threads = 0;
  std::int64_t stream = 0;          // engine::SessionOptions::stream; changes no result
  std::string arithmetic = "int8";  // of products with quantized weights: int8, float
  std::string rounding = "none";    // of products with f32 weights: none, bf16, int8
  bool update_inside = false;
  // Of the method "zo": forward passes alone.
  std::string perturb = "low-rank";  // what moves: low-rank, pooled, scale, prompt, full
  std::string factor = "inputs";     // A of low-rank: random, or of the layers' own inputs
  std::string probe = "tangent";     // tangent, pair, one-sided
  std::int64_t directions = 8;
  double epsilon = 1e-3;  // of pairs and one-sided probes
  std::string noise = "rademacher";
  std::string shaping = "mean";  // of derivatives to coefficients: mean, spread, rank
  double derivative_clip = 0;    // of each direction's; 0: none
  std::int64_t trajectory = 0;   // TrainerOptions::trajectory, and the next three
  double seed_momentum = 0;
  std::int64_t line_search = 0;
  std::int64_t backward_layers = 0;
  double backward_rate = 0;   // of them; 0: ten times the rate, of rules like adamw the rate
  double epsilon_target = 0;  // feedback::ForwardOptions::epsilon_target
  // That move: auto (the last sixth), all, random, or the number of the last ones.
  std::string layers = "auto";
  // Most bytes of what layers that do not move gave, kept for examples that come again.
  std::int64_t kept_layers = 256 << 20;
  std::string reward;               // a program whose numbers are maximized instead
  std::string rank;                 // a program that ranks answers instead
  std::int64_t answer_tokens = 64;  // most of an answer that is judged
  double program_seconds = 60;      // that a program may take

  bool forward_only() const { return method.method == "zo"; }
  // What the method trains, whatever finds out how.
  MethodOptions trained_method(std::int64_t model_layers) const;
  Result<feedback::ForwardOptions> forward_options() const;
  bool offload = false;  // the optimizer's state lies in a file, whether memory is short or not, if
                         // `scratch` is given
  std::string packed_folder;  // engine::SessionOptions::packed_folder, of streams. Not of the JSON.
  std::string scratch;        // folder of that file; empty: none may be made. Not of the JSON.

  // All of it, as a JSON object that `of_json` reads back.
  std::string json() const;
  static Result<JobOptions> of_json(const std::string& text);
};

// The pass that rounds as --rounding says; empty: none.
std::string rounding_pass(std::string_view rounding);

// The rate that a method starts from, where the user names none.
double default_learning_rate(const std::string& method, const std::string& optimizer);

class Job {
 public:
  // `workers` share the work of forward passes and outlive the job.
  static Result<std::unique_ptr<Job>> open(const JobOptions& options, Workers* workers = nullptr);

  const JobOptions& options() const { return options_; }
  engine::Session& session() { return *session_; }
  const formats::Tokenizer& tokenizer() const { return *tokenizer_; }
  const formats::ChatTemplate* chat() const { return chat_ ? &*chat_ : nullptr; }
  const Dataset& data() const { return data_; }
  const std::vector<Example>& held_out() const { return held_out_; }
  Trained& trained() { return trained_; }
  Trainer& trainer() { return *trainer_; }
  std::int64_t steps() const { return steps_; }
  // What the run will need, by class, and the limit that it was fitted to.
  const MemoryClasses& memory() const { return memory_; }
  std::int64_t memory_limit() const { return limit_; }
  std::int64_t planned_tokens() const { return std::max<std::int64_t>(1, plan_.tokens); }
  // Of the whole process at its peak: what was resident when all was loaded, and what steps take.
  std::int64_t planned_bytes() const {
    return resident_ + memory_.activations + memory_.work + memory_.gradients + memory_.kept;
  }
  const feedback::GradientPlan& plan() const { return plan_; }
  bool offloads() const { return !trainer_options_.offload.empty(); }

  // Measures how long a step takes (Trainer::measure_step), 0 before, and what the process holds;
  // may make the trainer anew, so it comes before a checkpoint is restored.
  Status measure_step();
  double step_seconds() const { return step_seconds_; }
  // What the limits of the machine allow for this many tokens.
  double limit_seconds(std::int64_t tokens) const {
    return plan_.cost.seconds * static_cast<double>(tokens) / static_cast<double>(planned_tokens());
  }

  // Counts again what the process holds before its steps: answers before them leave memory behind.
  void measure_resident();
  // Mean loss of the held-out examples; of none: 0.
  Result<double> held_out_loss();

 private:
  Result<double> measure_judged();
  Job(JobOptions options, Workers* workers) : options_(std::move(options)), workers_(workers) {}
  Status join();
  Status load();
  Status stream_packed(engine::SessionOptions how);
  Status prepare_trained();
  Status choose_rule();
  Status choose_feedback();
  Status make_trainer(std::int64_t kept_bytes, std::int64_t micro_tokens);
  Status fit_memory();
  Status make_judge();
  Status make_scratch();
  Result<bool> fits(std::int64_t longest);

  JobOptions options_;
  Workers* workers_ = nullptr;
  std::unique_ptr<engine::Session> session_;
  std::optional<formats::Tokenizer> tokenizer_;
  std::optional<formats::ChatTemplate> chat_;
  Dataset data_;
  std::vector<Example> held_out_;
  Trained trained_;
  std::unique_ptr<Judge> judge_;  // of rewards and rankings
  std::unique_ptr<Trainer> trainer_;
  TrainerOptions trainer_options_;
  std::int64_t steps_ = 0;
  MemoryClasses memory_;
  feedback::GradientPlan plan_;
  std::int64_t limit_ = 0;
  double step_seconds_ = 0;
  std::int64_t resident_ = 0;  // bytes of the process before the first step
};

}  // namespace hone::tune

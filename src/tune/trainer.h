// The training loop: batches of examples, a gradient from a backward pass or estimated by forward
// passes alone, one update rule.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/scratch_file.h"
#include "base/status.h"
#include "engine/session.h"
#include "feedback/forward_gradient.h"
#include "feedback/gradient.h"
#include "optim/registry.h"
#include "optim/schedule.h"
#include "optim/trajectory.h"
#include "tune/checkpoint.h"
#include "tune/data/example.h"
#include "tune/trained.h"

namespace hone::tune {

struct TrainerOptions {
  const optim::UpdateRule* rule = nullptr;
  optim::Settings settings;
  optim::Schedule schedule;  // of the learning rate, its peak included
  double weight_decay = 0;
  double clip = 1.0;                 // largest norm of all gradients together; 0: no limit
  std::int64_t batch = 8;            // examples a step
  std::int64_t micro_tokens = 1024;  // most tokens of one program run, at least the longest example
  std::uint64_t seed = 1;            // of the order of the examples
  // A folder on a disk: the optimizer's state lies in a file there, and only what a step works on
  // is resident. Empty: in memory.
  std::string offload;
  bool update_inside = false;  // each parameter steps as soon as its gradient is there; no clipping
  std::int64_t kept_bytes = INT64_MAX;  // of activations (feedback::GradientOptions)
  std::string rounding;                 // a pass (feedback::GradientOptions)
  cost::Machine machine;                // limits, for estimates of time
  // Gradients are estimated by forward passes; the seed is the trainer's.
  std::optional<feedback::ForwardOptions> forward;
  // Rows of what forward passes move forget, every so many steps, the directions along which they
  // hardly moved (optim::Trajectory); 0: never.
  std::int64_t trajectory = 0;
  // Estimates of earlier steps count on, each step by this factor less, drawn anew from their
  // seeds: momentum without a state.
  double seed_momentum = 0;
  // An estimate's step is tried at so many lengths, 4, 2, 1, 1/2, … times the rate, and not at all,
  // and the best one on the step's examples is taken; 0: it is taken as it is.
  std::int64_t line_search = 0;
  // The last so many layers learn by a backward pass that goes no deeper, at this many times the
  // rate; forward passes move what lies below.
  std::int64_t backward_layers = 0;
  double backward_factor = 1;
  // Where feedback is no loss of the examples: `look` sees what these (their places in the data)
  // become at a candidate, with the parameters there; then `losses` (a reward's opposite) or
  // `order` tells of all candidates since (feedback::Candidates).
  struct Judging {
    std::function<Status(std::span<const std::size_t> examples)> look;
    std::function<Result<std::vector<double>>()> losses;
    std::function<Result<std::vector<std::int64_t>>()> order;
  };
  std::optional<Judging> judging;
  // How some examples (their places in the data) become program runs; empty: sequences with a mask,
  // whose losses count the same.
  std::function<std::vector<feedback::TokenBatch>(std::span<const std::size_t> examples)> batches;
  engine::CompileOptions compile;
};

struct StepReport {
  std::int64_t step = 0;     // counts from 1
  double loss = 0;           // mean over the step's targets, before its update
  double gradient_norm = 0;  // before clipping; 0 where updates happen inside
  double learning_rate = 0;
  std::int64_t tokens = 0;
  std::int64_t targets = 0;
  double seconds = 0;
  std::int64_t clipped = 0;  // derivatives along directions that were
  bool skipped = false;      // a loss or a gradient was not finite: nothing was changed
};

// Bytes by class, planned before they are taken.
struct MemoryClasses {
  std::int64_t weights = 0;      // of the model, as programs read them
  std::int64_t trained = 0;      // what changes
  std::int64_t optimizer = 0;    // its state, in memory
  std::int64_t offloaded = 0;    // its state, in a file
  std::int64_t gradients = 0;    // sums over micro-batches
  std::int64_t kept = 0;         // of what layers that do not move gave
  std::int64_t activations = 0;  // arena of one program run
  std::int64_t work = 0;         // scratch of the kernels, and the parts of a file in work
  std::int64_t total() const {
    return weights + trained + optimizer + gradients + kept + activations + work;
  }
};

class Trainer {
 public:
  // Everything outlives the trainer. Errors: kInvalidArgument where updates inside meet a rule that
  // needs all gradients first; those of ScratchFile.
  static Result<std::unique_ptr<Trainer>> create(engine::Session& session, Trained& trained,
                                                 std::span<const Example> examples,
                                                 TrainerOptions options);

  Result<StepReport> step();
  // Mean loss over the targets of some examples; nothing changes.
  Result<double> evaluate(std::span<const Example> examples);
  std::int64_t steps_done() const { return step_; }
  std::int64_t steps_of_epoch() const;

  // The largest program that training will run, compiled; memory is not taken yet.
  Result<feedback::GradientPlan> plan();
  Result<MemoryClasses> memory();
  // About how long a step takes, measured: runs a batch forward and backward twice, in memory that
  // it gives back; nothing changes.
  Result<double> measure_step();
  // Lets go of the memory that runs took; the next takes it again.
  void give_back_memory() { *workspace_ = runtime::Workspace(); }
  std::int64_t compiled_programs() const {
    return forward_gradient_ ? forward_gradient_->compiled_programs()
                             : gradient_.compiled_programs();
  }
  void profile(bool on);
  // Seconds of all steps since, by kind of operation.
  std::vector<std::pair<std::string, double>> profiled() const;

  // What a checkpoint holds: trained tensors and optimizer state; of forward passes the
  // coefficients of all steps, from which both are made again. The step is its own.
  std::vector<CheckpointTensor> state() const;
  Status restore(const Checkpoint& checkpoint);
  // SHA-256 of all trained values: equal for equal runs.
  std::string hash() const;
  // Of all trajectories, now.
  std::int64_t removed_directions() const;

 private:
  // Elements of an offloaded state that a thread works on at a time: 4 MB with two numbers each.
  static constexpr std::int64_t kPartElements = std::int64_t{1} << 19;
  // Elements of an estimated gradient that are drawn at a time: half of a second-level cache, and a
  // multiple of every rule's granule.
  static constexpr std::int64_t kDrawnPart = std::int64_t{1} << 16;
  Trainer(engine::Session& session, Trained& trained, std::span<const Example> examples,
          TrainerOptions options);
  std::vector<std::size_t> examples_of(std::int64_t step);
  // `shared`: of this rank's part of the examples.
  std::vector<feedback::TokenBatch> micro_batches(std::span<const Example* const> examples,
                                                  bool shared = false) const;
  feedback::GradientOptions gradient_options();
  bool learns_backward(std::size_t index) const;
  Status add_backward(std::span<const feedback::TokenBatch> batches);
  Result<feedback::GradientPlan> elastic_plan(const feedback::TokenBatch& batch);
  Status restore_history(const Checkpoint& checkpoint);
  std::vector<CheckpointTensor> tensor_state() const;
  feedback::GradientOptions forward_options();
  Status accumulate(std::span<const Example* const> examples, StepReport& report);
  Status estimate(std::span<const std::size_t> chosen,
                  std::span<const feedback::TokenBatch> batches, StepReport& report);
  void expand_history(std::int64_t step);
  void follow_trajectories();
  Status search_line(std::span<const std::size_t> chosen,
                     std::span<const feedback::TokenBatch> batches, StepReport& report);
  Result<std::size_t> best_of_line(std::span<const double> losses) const;
  void clip_and_update(StepReport& report);
  void keep_before_update();
  void restore_before();
  void take_back(std::int64_t step);
  std::int64_t kept_bytes_of(const Example& example) const;
  Result<double> measure_forward_step(const feedback::TokenBatch& batch);
  Status replay(const Checkpoint& checkpoint);
  // Of the history: a step's row, and how many numbers it has.
  std::span<double> row_of(std::int64_t step);
  std::size_t row_size() const;
  bool draws_gradients() const;
  std::span<const float> gradient_part(std::size_t index, Range range,
                                       std::vector<float>& buffer) const;
  double norm_of_gradients();
  void update(float gradient_scale);
  void update_tensor(std::size_t index, std::span<float> weights, std::span<const float> gradient,
                     float gradient_scale, Range share, bool whole);
  Status make_states();
  void update_part(std::size_t index, std::span<float> weights, std::span<const float> gradient,
                   float gradient_scale, Range part, bool whole);

  engine::Session& session_;
  Trained& trained_;
  std::span<const Example> examples_;
  TrainerOptions options_;
  std::vector<optim::Shape2> shapes_;
  std::vector<std::vector<std::byte>> owned_states_;
  ScratchFile file_;  // holds the states instead
  std::vector<std::span<std::byte>> states_;
  std::vector<std::vector<float>> gradients_;    // sums; empty where one run makes a whole step
  std::vector<std::span<const float>> current_;  // the gradients of this step
  std::vector<std::vector<float>> backward_gradients_;  // of layers that learn backward, if some do
  std::shared_ptr<runtime::Workspace> workspace_;       // of both
  feedback::Gradient gradient_;
  feedback::Gradient forward_;
  std::unique_ptr<feedback::ForwardGradient> forward_gradient_;  // where forward passes estimate
  // Of it, a row a step: its coefficients; the factor of its rate, if lines are searched; the
  // distance of the next probes, if it follows. Its first number is NaN where losses were not
  // finite, which takes the step before back (infinite then) and halves the rate from there on.
  std::vector<double> history_;
  std::vector<feedback::EstimateTerm> terms_;  // of this step's gradient
  double rate_factor_ = 1;
  std::vector<optim::Trajectory> trajectories_;    // of each row that moves
  std::vector<std::vector<float>> values_before_;  // of the last update
  std::vector<std::vector<std::byte>> states_before_;
  std::int64_t step_ = 0;
  double learning_rate_ = 0;
  std::int64_t epoch_ = -1;
  std::vector<std::size_t> order_;
};

}  // namespace hone::tune

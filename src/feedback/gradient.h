// The signal of gradients: a batch of tokens becomes the loss and its gradients, by one program
// that runs forward and backward.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/recent.h"
#include "base/status.h"
#include "engine/compile.h"
#include "engine/session.h"
#include "feedback/token_batch.h"
#include "passes/transform/recompute.h"
#include "runtime/execute.h"

namespace hone::feedback {

class KeptLayers;

struct GradientOptions {
  engine::CompileOptions compile;
  // Changes the model's graph before the loss is put on it: adapters, for example.
  std::function<Result<ir::Graph>(const ir::Graph& graph)> adapt;
  // Parameters by the names that they have after `adapt`, in the order of the gradients.
  std::vector<std::string> trained;
  bool trains_output = false;  // the output matrix is among them
  bool forward_only = false;   // losses alone; what is trained may still change between runs
  // Instead of gradients, the loss's derivatives along so many directions of what is trained: f32
  // tensors of the session's weights by the names of passes::direction_name.
  int directions = 0;
  // Of each that is trained, or empty: its number, where its directions are random signs that are
  // drawn as they are multiplied, by the keys called passes::signs_key_name; else below 0.
  std::vector<std::int64_t> drawn;
  // Bytes of activations kept for the backward part; what is over is made again.
  std::int64_t kept_bytes = INT64_MAX;
  // What the layers below gave, in place of running them: nothing in them is trained.
  std::shared_ptr<KeptLayers> kept_layers;
  cost::Machine machine;  // by whose limits costs are counted
  // A pass by name, behind the gradients: how products with f32 weights round (passes/transform:
  // bf16, quantize_training). Empty: none.
  std::string rounding;
  // Parameters step inside of the program; no gradients come out.
  std::function<passes::UpdateFunction(std::string_view name)> update;
};

// Bytes that one batch shape takes beside weights, and its arithmetic.
struct GradientPlan {
  std::int64_t tokens = 0;       // of the batch, rounded up
  std::int64_t arena_bytes = 0;  // activations and gradients, as planned
  std::int64_t work_bytes = 0;   // of all threads
  passes::RecomputeReport kept;
  cost::Estimate cost;
};

class Gradient {
 public:
  // The session outlives it, and its weights hold every trained parameter. Several may share the
  // memory that their runs take, as long as one runs at a time.
  Gradient(engine::Session& session, GradientOptions options,
           std::shared_ptr<runtime::Workspace> workspace = std::make_shared<runtime::Workspace>());

  struct Outcome {
    double loss = 0;                                // sum of weight * loss over the batch
    std::int64_t right = 0;                         // questions whose right choice is likeliest
    std::vector<double> choice_scores;              // mean log-probability of each choice's tokens
    double weight = 0;                              // sum of the weights
    std::vector<std::span<const float>> gradients;  // of the sum; valid until the next call
    std::vector<double> derivatives;                // of the sum, along each direction
    // The parts of both that each sequence (or question) has, whose sums in order they are: the
    // same bits however a batch is cut.
    std::vector<double> unit_losses;
    std::vector<std::vector<double>> unit_derivatives;  // [direction][unit]
  };
  Result<Outcome> run(const TokenBatch& batch);
  // What `run` would take, without running. The program is kept for the run.
  Result<GradientPlan> plan(const TokenBatch& batch);

  std::int64_t compiled_programs() const { return compiled_; }
  std::size_t workspace_bytes() const { return workspace_->capacity(); }
  const GradientOptions& options() const { return options_; }
  // The operations of a step by kind and their seconds, slowest first, of the runs since the last
  // call; empty unless `profile(true)` was called before.
  void profile(bool on);
  std::vector<std::pair<std::string, double>> profiled() const;

 private:
  struct Bound {
    models::Batch shape;
    std::shared_ptr<const runtime::Program> program;
    std::vector<const runtime::Weight*> weights;
    GradientPlan plan;
    runtime::Profile profile;
  };
  bool trains_backward() const { return !options_.forward_only && options_.directions == 0; }
  Result<Bound*> program_for(const models::Batch& shape);
  Result<ir::Graph> build(const models::Batch& shape, GradientPlan& plan);

  engine::Session& session_;
  GradientOptions options_;
  Recent<Bound, 16> programs_;
  std::shared_ptr<runtime::Workspace> workspace_;
  std::int64_t compiled_ = 0;
  bool profile_ = false;
};

}  // namespace hone::feedback

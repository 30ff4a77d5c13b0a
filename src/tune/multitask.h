// Gradients of several tasks that share a trunk, at weights that are made sharper first: by none,
// by one step for all (SAM), by one for each task, or by SAMO's mixed step.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "optim/sam.h"
#include "tune/classifier.h"

namespace hone::tune {

enum class Sharpness : std::uint8_t {
  kNone,     // 1 backward pass: the mean of all losses ("linear scalarization")
  kGlobal,   // 2: up along the gradient of the mean (Foret et al. 2021)
  kPerTask,  // 2 K: up along each task's own gradient (Phan et al. 2022)
  kSamo,     // 1 + K, and 2 K forward passes (Ban et al. 2025, algorithm 1)
};

// The same examples twice: for all heads at once, and for each head alone. Weights are such that
// the sum over all is the loss that is trained. A task's batch may have rows of its own or, where
// every example has every label, all of them.
struct MultitaskBatch {
  ClassifierBatch joint;
  std::vector<ClassifierBatch> tasks;
};

struct MultitaskOptions {
  Sharpness sharpness = Sharpness::kNone;
  double rho = 0.05;  // the step up
  optim::SamoSettings samo;
  std::uint64_t seed = 1;  // of SAMO's probes
};

class MultitaskGradient {
 public:
  // The model outlives this.
  MultitaskGradient(Classifier& model, std::int64_t heads, const MultitaskOptions& options);

  // In the order of model.parameters_of(all heads); valid until the next call. The weights are
  // afterwards what they were before, to the bit.
  Result<std::vector<std::span<const float>>> of(const MultitaskBatch& batch, std::int64_t step);

 private:
  using Gradients = std::vector<std::span<const float>>;
  Status add_per_task(const MultitaskBatch& batch);
  Status add_samo(const MultitaskBatch& batch, std::int64_t step);
  Result<optim::SamoProbe> probe(const MultitaskBatch& batch, std::int64_t head, std::int64_t step);
  // Adds a head's gradient at the weights as they are now.
  Status add_task(const MultitaskBatch& batch, std::int64_t head);
  std::vector<std::span<float>> weights(std::span<const std::string> names);

  Classifier& model_;
  MultitaskOptions options_;
  std::vector<std::int64_t> heads_;
  std::vector<std::vector<float>> sum_;  // one for each parameter of all heads
};

}  // namespace hone::tune

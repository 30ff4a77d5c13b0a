// The elastic split (Sugiura & Matsutani 2025, "ElasticZO", arXiv 2501.04287): layers up to the cut
// learn from pairs of forward passes, the layers behind it from ordinary backpropagation.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "base/threads.h"
#include "tune/network.h"
#include "tune/vision.h"

namespace hone::tune {

struct ElasticOptions {
  // Layers whose gradient is estimated: 0 is backpropagation of everything, all of them is pure
  // zeroth order; all but one or two are the paper's Cls1 and Cls2.
  std::int64_t cut = 0;
  double epsilon = 1e-3;
  double head_rate = 1e-3;  // of the estimated gradient
  double tail_rate = 0.05;  // of the exact one; plain SGD both
  double clip = 0;          // bound of |projected gradient|; 0 is none
  std::uint64_t seed = 1;
};

// Bytes that training holds, as planned.
struct ElasticMemory {
  std::int64_t parameters = 0;
  std::int64_t arena = 0;    // activations and errors of a step, gradients among them
  std::int64_t scratch = 0;  // of the kernels
  std::int64_t beside = 0;   // the perturbed layers as they were (see `step`)
  std::int64_t total() const { return parameters + arena + scratch + beside; }
  // As a method that perturbs in place would hold it, the paper's count.
  std::int64_t in_place() const { return parameters + arena + scratch; }
};

class ElasticTrainer {
 public:
  // The network has the model's parameters (`initialize`), and outlives the trainer.
  ElasticTrainer(Network& network, const VisionModel& model, const ElasticOptions& options);

  // One step on a batch; the mean loss (with a head: of both passes). theta + epsilon z and
  // theta - epsilon z are each made from a copy of theta, which is then stepped: adding and
  // subtracting in place would leave rounding behind. z is Rademacher of (seed, step, tensor). The
  // tail's gradient is the mean of both passes'. A loss that is not finite steps nothing.
  Result<double> step(std::span<const float> features, std::span<const std::int32_t> targets);
  void set_rates(double head, double tail) {
    options_.head_rate = head;
    options_.tail_rate = tail;
  }
  Result<ElasticMemory> memory(std::int64_t examples);
  std::int64_t rejected() const { return rejected_; }

 private:
  Result<double> pass(std::span<const float> features, std::span<const std::int32_t> targets);
  void perturb(double factor);

  Network& network_;
  const VisionModel& model_;
  ElasticOptions options_;
  std::vector<std::string> head_, tail_;
  std::vector<std::vector<float>> copies_;     // theta of the head
  std::vector<std::vector<float>> gradients_;  // of the tail, summed over passes
  std::uint32_t step_ = 0;
  std::int64_t rejected_ = 0;
};

// The part of the examples whose class is the one with the largest logit.
Result<double> vision_accuracy(Network& network, const VisionModel& model,
                               std::span<const float> features,
                               std::span<const std::int32_t> targets);

}  // namespace hone::tune

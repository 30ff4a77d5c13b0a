// Sharpness-aware minimization: a step up before the gradient, and exactly back; for one loss
// (SAM) and for several (SAMO).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "optim/clip.h"

namespace hone::optim {

// w + rho g / |g|_2 over all tensors together (Foret et al. 2021, eq. 2), and back to the same
// bits: a copy of the weights is kept while they are perturbed (adding and subtracting would
// round).
//   1. gradient at w  2. ascend(gradient)  3. gradient at w + e  4. restore()  5. update
class Ascent {
 public:
  explicit Ascent(std::vector<std::span<float>> weights) : weights_(std::move(weights)) {}

  // direction: one tensor for each of the weights. Ascending twice without restore() goes on from
  // the first copy. A direction of zeros leaves the weights. Returns rho / (|g| + 1e-12), the
  // factor that was used.
  double ascend(Tensors direction, double rho);
  void restore();
  bool ascended() const { return !copy_.empty(); }

 private:
  std::vector<std::span<float>> weights_;
  std::vector<std::vector<float>> copy_;  // empty while the weights are where they were
};

// Gaussian noise of (seed, tensor), element by element: the same for any split and on any thread.
// Philox and Box-Muller (base/random.h); weights[i] += scale * z[begin + i].
void add_noise(std::span<float> weights, double scale, std::uint64_t seed, std::uint64_t tensor,
               std::int64_t begin = 0);

// SAMO (Ban et al. 2025, "Efficient and Robust Sharpness-Aware Multi-task Optimization"): task k's
// direction is alpha G + (1 - alpha) G_k, where G is the gradient of the mean loss and G_k a
// zeroth-order estimate of the task's own, renormalised tensor by tensor to G's length.
//   G_k = (loss(w + mu z) - loss(w - mu z)) / (2 mu) z, two forward passes for each task.
struct SamoProbe {
  std::uint64_t seed = 0;
  double loss_up = 0.0;    // at w + mu z
  double loss_down = 0.0;  // at w - mu z
};
struct SamoSettings {
  double alpha = 0.5;  // of G; the paper's grid is 0.3, 0.5, 0.7
  double mu = 0.01;    // the probe's radius, as published
};
// Tensor i's noise is add_noise's of (probe.seed, i). out: one tensor for each of `global`.
void samo_direction(Tensors global, const SamoProbe& probe, const SamoSettings& settings,
                    std::span<const std::span<float>> out);

}  // namespace hone::optim

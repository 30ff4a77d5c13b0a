// What an optimizer did to weights: how full Lion's box is, norms, ranks, and how sparse they are.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

#include "optim/rule.h"

namespace hone::optim {

// Lion with weight decay d keeps max|x| <= 1/d (lion_k.cpp). 1 means that the largest weight is at
// the border, above 1 that it is still on its way in.
struct Box {
  double share = 0.0;      // max|x| d
  double largest = 0.0;    // max|x|
  double at_border = 0.0;  // the part of the weights with |x| d >= 0.99
};
Box box_of(std::span<const float> weights, double weight_decay);

// The largest |x| that Lion can have after t steps from a largest of `start` (Chen et al. 2024,
// theorem 3.1 in discrete time): (1 - rate d)^t start + (1 - (1 - rate d)^t) / d.
double box_envelope(double start, double learning_rate, double weight_decay, std::int64_t steps);

// The largest singular value, by power iteration on x^T x from a fixed start; from below, and
// within the relative tolerance once the iteration has settled.
double spectral_norm(std::span<const float> matrix, Shape2 shape, int iterations = 100,
                     double tolerance = 1e-6);

// |x|_F^2 / |x|_2^2, from 1 (rank one) to min(R, C); 0 for a matrix of zeros.
double stable_rank(std::span<const float> matrix, Shape2 shape);

// exp of the entropy of the singular values' shares s_i / sum s (Roy & Vetterli 2007, effective
// rank), by the eigenvalues of the smaller Gram matrix: about 10 min(R, C)^3 operations.
double effective_rank(std::span<const float> matrix, Shape2 shape);

// The part of the weights with |x| <= threshold * RMS(x).
double sparsity(std::span<const float> weights, double threshold);

}  // namespace hone::optim

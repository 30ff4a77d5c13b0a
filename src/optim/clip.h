// Norms and clipping of gradients, over many tensors, in an order that no split changes.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>

namespace hone::optim {

// Several tensors that are treated as one long vector, in this order.
using Tensors = std::span<const std::span<const float>>;

// The 2-norm of all of them. With norms made one by one (an update right behind each gradient),
// global_norm_of their squares in the same order gives the same bits.
double global_norm(Tensors tensors);
double squared_norm(std::span<const float> tensor);
double global_norm_of(std::span<const double> squared_norms);

// What gradients must be multiplied by so that a norm becomes at most `largest` (Pascanu et al.
// 2013, algorithm 1, with PyTorch's 1e-6 beside the norm); for UpdateTask::gradient_scale. A
// norm that is not finite gives 0: such a step is to be skipped. largest <= 0 does not clip.
double clip_factor(double norm, double largest);

// Every element into [-largest, largest]; returns how many were beyond. NaN stays.
std::size_t clip_values(std::span<float> gradient, float largest);

}  // namespace hone::optim

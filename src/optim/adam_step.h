// Adam's step on f32 state, for adamw and for the rules that use it where theirs has no meaning.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/update.h"
#include "optim/rule.h"

namespace hone::optim {

struct AdamSettings {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
};

// Kingma & Ba 2015, algorithm 1, with both bias corrections folded into the rate and the root:
// m_hat / (sqrt(v_hat) + epsilon).
kernels::AdamTask adam_task(const UpdateTask& task, const AdamSettings& adam);

// 8 bytes an element, in blocks of kernels::kUpdateBlock.
std::size_t adam_state_bytes(Shape2 shape);
void adam_update(const UpdateTask& task, const AdamSettings& adam);

}  // namespace hone::optim

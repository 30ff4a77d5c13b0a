// SPDX-License-Identifier: Apache-2.0
#include "optim/adam_step.h"

#include <cmath>

#include "kernels/registry.h"
#include "optim/state.h"

namespace hone::optim {

kernels::AdamTask adam_task(const UpdateTask& task, const AdamSettings& adam) {
  const auto step = static_cast<double>(task.step);
  kernels::AdamTask out;
  out.run = run_of(task);
  out.run.rate = static_cast<float>(task.learning_rate / (1.0 - std::pow(adam.beta1, step)));
  out.root_scale = static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(adam.beta2, step)));
  out.beta1 = static_cast<float>(adam.beta1);
  out.one_minus_beta1 = static_cast<float>(1.0 - adam.beta1);
  out.beta2 = static_cast<float>(adam.beta2);
  out.one_minus_beta2 = static_cast<float>(1.0 - adam.beta2);
  out.epsilon = static_cast<float>(adam.epsilon);
  return out;
}

std::size_t adam_state_bytes(Shape2 shape) {
  return float_bytes(2 * padded(shape.elements(), kernels::kUpdateBlock));
}

void adam_update(const UpdateTask& task, const AdamSettings& adam) {
  kernels::AdamTask step = adam_task(task, adam);
  step.state = as_floats(task.state);
  kernels::kernels().adam_step(step);
}

}  // namespace hone::optim

// Stochastic gradient descent with momentum, as PyTorch and most of the literature write it.
// SPDX-License-Identifier: Apache-2.0
#include <array>

#include "kernels/registry.h"
#include "optim/rule.h"
#include "optim/state.h"

namespace hone::optim {
namespace {

constexpr std::array kDefaults = {
    decay("momentum", 0.9, "Sutskever et al. 2013, section 3; usual"),
    choice("nesterov", "no", "no|yes", "Sutskever et al. 2013, eq. 3-4, in PyTorch's form"),
    choice("decay", "decoupled", "decoupled|coupled",
           "decoupled: SGDW, Loshchilov & Hutter 2019, alg. 1; coupled: L2 in the gradient"),
};

// A cache line of floats, so that threads do not share one.
constexpr std::int64_t kGranule = 16;

std::size_t state_bytes(Shape2 shape, const Settings& settings) {
  if (settings.number("momentum") == 0.0) return 0;
  return float_bytes(padded(shape.elements(), kGranule));
}

void update(const UpdateTask& task) {
  kernels::MomentumTask step;
  step.run = run_of(task);
  if (task.settings.is("decay", "coupled")) {
    step.run.keep = 1.0f;
    step.coupled_decay = static_cast<float>(task.weight_decay);
  }
  step.momentum = static_cast<float>(task.settings.number("momentum"));
  step.nesterov = task.settings.is("nesterov", "yes");
  if (step.momentum != 0.0f) step.state = as_floats(task.state).first(task.weights.size());
  kernels::kernels().momentum_step(step);
}

}  // namespace

const UpdateRule& sgd_rule() {
  static const UpdateRule kRule = [] {
    UpdateRule rule;
    rule.name = "sgd";
    rule.summary = "b = momentum b + g; w -= rate (nesterov ? g + momentum b : b)";
    rule.source = "Polyak 1964; Sutskever et al. 2013, eq. 1-4";
    rule.defaults = kDefaults;
    rule.learning_rate = 1e-2;
    rule.element_wise = true;
    rule.granule = kGranule;
    rule.state_bytes = state_bytes;
    rule.update = update;
    return rule;
  }();
  return kRule;
}

}  // namespace hone::optim

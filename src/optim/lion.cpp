// Lion: the sign of an interpolated momentum.
// SPDX-License-Identifier: Apache-2.0
#include <array>

#include "kernels/registry.h"
#include "optim/rule.h"
#include "optim/state.h"

namespace hone::optim {
namespace {

constexpr std::array kDefaults = {
    decay("beta1", 0.9, "Chen et al. 2023, section 3.2; language models 0.95"),
    decay("beta2", 0.99, "Chen et al. 2023, section 3.2; language models 0.98"),
};

constexpr std::int64_t kGranule = 16;

std::size_t state_bytes(Shape2 shape, const Settings&) {
  return float_bytes(padded(shape.elements(), kGranule));
}

void update(const UpdateTask& task) {
  kernels::SignTask step;
  const double beta1 = task.settings.number("beta1");
  const double beta2 = task.settings.number("beta2");
  step.run = run_of(task);
  step.state = as_floats(task.state).first(task.weights.size());
  step.beta1 = static_cast<float>(beta1);
  step.one_minus_beta1 = static_cast<float>(1.0 - beta1);
  step.beta2 = static_cast<float>(beta2);
  step.one_minus_beta2 = static_cast<float>(1.0 - beta2);
  kernels::kernels().sign_step(step);
}

}  // namespace

const UpdateRule& lion_rule() {
  static const UpdateRule kRule = [] {
    UpdateRule rule;
    rule.name = "lion";
    rule.summary = "w -= rate sign(beta1 m + (1 - beta1) g); m = beta2 m + (1 - beta2) g";
    rule.source = "Chen et al. 2023 (Symbolic Discovery of Optimization Algorithms), program 1";
    rule.defaults = kDefaults;
    // A third to a tenth of AdamW's rate, three to ten times its decay (section 5).
    rule.learning_rate = 1e-4;
    rule.weight_decay = 1e-1;
    rule.element_wise = true;
    rule.granule = kGranule;
    rule.state_bytes = state_bytes;
    rule.update = update;
    return rule;
  }();
  return kRule;
}

}  // namespace hone::optim

// Adam with decoupled weight decay.
// SPDX-License-Identifier: Apache-2.0
#include <array>

#include "optim/adam_step.h"
#include "optim/rule.h"

namespace hone::optim {
namespace {

constexpr std::array kDefaults = {
    decay("beta1", 0.9, "Kingma & Ba 2015, section 2"),
    decay("beta2", 0.999, "Kingma & Ba 2015, section 2; language models often use 0.95"),
    number("epsilon", 1e-8, "Kingma & Ba 2015, section 2"),
};

std::size_t state_bytes(Shape2 shape, const Settings&) { return adam_state_bytes(shape); }

void update(const UpdateTask& task) {
  const Settings& settings = task.settings;
  adam_update(task,
              {settings.number("beta1"), settings.number("beta2"), settings.number("epsilon")});
}

}  // namespace

const UpdateRule& adamw_rule() {
  static const UpdateRule kRule = [] {
    UpdateRule rule;
    rule.name = "adamw";
    rule.summary = "m, v: running means of g, g^2; w -= rate m_hat / (sqrt(v_hat) + epsilon)";
    rule.source = "Loshchilov & Hutter 2019, algorithm 2 (rate not squared into the decay)";
    rule.defaults = kDefaults;
    rule.learning_rate = 1e-3;
    rule.weight_decay = 1e-2;
    rule.element_wise = true;
    rule.granule = kernels::kUpdateBlock;
    rule.state_bytes = state_bytes;
    rule.update = update;
    return rule;
  }();
  return kRule;
}

}  // namespace hone::optim

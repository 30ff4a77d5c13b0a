// AdamW with both moments in 8 bits: blocks of 256 with a scale each.
// SPDX-License-Identifier: Apache-2.0
//
// Block-wise quantization of optimizer state is Dettmers et al. 2022 (8-bit Optimizers via
// Block-wise Quantization, section 2). Here is different: the dynamic map's octaves (theirs are
// decades with a table of 256 values) so that coding is a shift of the float's own bits; stochastic
// rounding, because v changes by about a thousandth a step and would stay on its code when rounded
// to nearest; and the least code of v > 0 is not 0 (Li et al. 2023, Memory Efficient Optimizers
// with 4-bit States, section 4.1: the zero-point problem).
#include <array>

#include "kernels/registry.h"
#include "optim/adam_step.h"
#include "optim/rule.h"
#include "optim/state.h"

namespace hone::optim {
namespace {

constexpr std::array kDefaults = {
    decay("beta1", 0.9, "Kingma & Ba 2015, section 2"),
    decay("beta2", 0.999, "Kingma & Ba 2015, section 2; language models often use 0.95"),
    number("epsilon", 1e-8, "Kingma & Ba 2015, section 2"),
    choice("map", "dynamic", "dynamic|linear", "Dettmers et al. 2022, section 2.2, in octaves"),
    choice("rounding", "stochastic", "stochastic|nearest", "own choice, see the file's head"),
};

std::size_t state_bytes(Shape2 shape, const Settings&) {
  constexpr std::int64_t kBlock = kernels::kUpdateBlock;
  return static_cast<std::size_t>(padded(shape.elements(), kBlock) / kBlock) *
         sizeof(kernels::Adam8Block);
}

void update(const UpdateTask& task) {
  const Settings& settings = task.settings;
  kernels::Adam8Task step;
  step.adam = adam_task(
      task, {settings.number("beta1"), settings.number("beta2"), settings.number("epsilon")});
  step.state = task.state;
  step.step = static_cast<std::uint32_t>(task.step);
  step.linear = settings.is("map", "linear");
  step.stochastic = settings.is("rounding", "stochastic");
  kernels::kernels().adam8_step(step);
}

}  // namespace

const UpdateRule& adamw8_rule() {
  static const UpdateRule kRule = [] {
    UpdateRule rule;
    rule.name = "adamw8";
    rule.summary = "adamw with m and v rounded to 8 bits in blocks of 256 after each step";
    rule.source = "Dettmers et al. 2022; Loshchilov & Hutter 2019, algorithm 2";
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

// SPDX-License-Identifier: Apache-2.0
#include "tune/small_training.h"

#include "optim/registry.h"

namespace hone::tune {

Result<double> trained_loss(ThreadPool& pool, const ByteText& text, const SmallTraining& training) {
  const auto rule = optim::rule_named(training.rule);
  if (!rule) return rule.error();
  const auto settings = optim::Settings::parse(**rule, training.settings);
  if (!settings) return settings.error();
  auto model = SmallModel::make(pool, training.model, training.seed);
  if (!model) return model.error();
  Stepper stepper(model->network(), model->trained(), **rule, *settings);
  for (std::int64_t step = 1; step <= training.schedule.steps; ++step) {
    const auto outcome = model->gradients(text, step, {});
    if (!outcome) return outcome.error();
    stepper.step(outcome->gradients, optim::scheduled(training.schedule, step), training.decay,
                 training.clip);
  }
  return model->held_out_loss(text, training.held_out_batches, {});
}

}  // namespace hone::tune

// SPDX-License-Identifier: Apache-2.0
#include "tune/small_training.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "ops/registry.h"
#include "passes/transform/products.h"

namespace hone::tune {
namespace {

double rate_at(std::int64_t step, const SmallTraining& how) {
  if (step < how.warmup) {
    return how.learning_rate * static_cast<double>(step + 1) / static_cast<double>(how.warmup);
  }
  if (!how.decays) return how.learning_rate;
  return how.learning_rate * static_cast<double>(how.steps - step) /
         static_cast<double>(std::max<std::int64_t>(1, how.steps - how.warmup));
}

}  // namespace

Result<SmallCurve> train_small(SmallModel& model, const ByteText& text,
                               const Arithmetic& arithmetic, const SmallTraining& how) {
  auto rule = optim::rule_named(how.rule);
  if (!rule) return rule.error();
  Stepper stepper(model.network(), model.trained(), **rule, optim::Settings((*rule)->defaults));
  SmallCurve curve;
  for (std::int64_t step = 0; step < how.steps; ++step) {
    const auto outcome = model.gradients(text, step, arithmetic);
    if (!outcome) return outcome.error();
    if (!std::isfinite(outcome->loss)) {
      return Error{ErrorCode::kUnsupported,
                   "the loss is not finite",
                   fmt::format("{} in {}, step {}", how.rule, arithmetic.name, step + 1),
                   "",
                   "",
                   "a lower learning rate"};
    }
    curve.losses.push_back(outcome->loss);
    curve.running = step == 0 ? outcome->loss : 0.9 * curve.running + 0.1 * outcome->loss;
    if (how.target > 0 && curve.running <= how.target) {
      curve.reached = true;
      break;
    }
    stepper.step(outcome->gradients, rate_at(step, how), 0, how.clip);
  }
  return curve;
}

Result<double> trained_loss(ThreadPool& pool, const ByteText& text, const SmallRun& run) {
  const auto rule = optim::rule_named(run.rule);
  if (!rule) return rule.error();
  const auto settings = optim::Settings::parse(**rule, run.settings);
  if (!settings) return settings.error();
  auto model = SmallModel::make(pool, run.model, run.seed);
  if (!model) return model.error();
  Stepper stepper(model->network(), model->trained(), **rule, *settings);
  for (std::int64_t step = 1; step <= run.schedule.steps; ++step) {
    const auto outcome = model->gradients(text, step, {});
    if (!outcome) return outcome.error();
    stepper.step(outcome->gradients, optim::scheduled(run.schedule, step), run.decay, run.clip);
  }
  return model->held_out_loss(text, run.held_out_batches, {});
}

Result<ir::Graph> with_loud_channel(const ir::Graph& graph, std::int64_t channel, double factor) {
  ir::Rewriter rewriter(graph, ops::find_op);
  const auto scaled = [&](ir::ValueId id, double by) {
    ir::Numbers numbers(static_cast<std::size_t>(rewriter.result().type(id).columns()), 1.0);
    numbers[static_cast<std::size_t>(channel) % numbers.size()] = by;
    const auto row = rewriter.emit(
        "constant", {},
        {{"shape", ir::Integers{static_cast<std::int64_t>(numbers.size())}}, {"values", numbers}});
    if (row.empty()) return id;
    const auto made = rewriter.emit("multiply", {id, row[0]});
    return made.empty() ? id : made[0];
  };
  for (const ir::Operation& operation : graph.operations) {
    if (passes::product_of(graph, operation, 32) != passes::Product::kForward) {
      rewriter.copy(operation);
      continue;
    }
    const auto made =
        rewriter.emit("matmul", {scaled(rewriter.map(operation.operands[0]), factor),
                                 scaled(rewriter.map(operation.operands[1]), 1 / factor)});
    if (made.size() == 1) rewriter.replace(operation.results[0], made[0]);
  }
  return rewriter.finish();
}

}  // namespace hone::tune

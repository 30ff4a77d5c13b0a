// SPDX-License-Identifier: Apache-2.0
#include "tune/rounding_study.h"

namespace hone::tune {

Result<RoundedModel> RoundingStudy::round_after(const SmallTraining& how) const {
  auto model = SmallModel::make(pool, size, seed);
  if (!model) return model.error();
  const auto curve = train_small(*model, text, {}, how);
  if (!curve) return curve.error();
  auto probe = probe_rounding(*model, text, rounding, batches);
  if (!probe) return probe.error();
  return RoundedModel{how, static_cast<std::int64_t>(curve->losses.size()), curve->reached,
                      *std::move(probe)};
}

Result<double> RoundingStudy::loss_of_aware(const RoundedModel& plain) const {
  auto model = SmallModel::make(pool, size, seed);
  if (!model) return model.error();
  const auto round = [this](const ir::Graph& graph) { return passes::add_qat(graph, rounding); };
  SmallTraining how = plain.how;
  how.steps = plain.steps;
  how.target = 0;
  const auto curve = train_small(*model, text, {"aware", round, nullptr}, how);
  if (!curve) return curve.error();
  return model->held_out_loss(text, batches, {"aware", round, nullptr});
}

}  // namespace hone::tune

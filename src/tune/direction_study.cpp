// SPDX-License-Identifier: Apache-2.0
#include "tune/direction_study.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/timing.h"
#include "tune/input_factors.h"

namespace hone::tune {
namespace {

// A session of its own with what the trial moves.
struct Opened {
  std::unique_ptr<engine::Session> session;
  Trained trained;
  feedback::GradientOptions base;
  std::unique_ptr<feedback::ForwardGradient> forward;
  std::vector<feedback::TokenBatch> batch;
};

Result<std::unique_ptr<Opened>> open(const ChoiceStudy& study, const DirectionTrial& trial) {
  auto out = std::make_unique<Opened>();
  engine::SessionOptions how;
  how.threads = study.options().threads;
  how.context = 64;
  how.compile.arithmetic = trial.arithmetic;
  auto session = engine::Session::open(study.options().model, how);
  if (!session) return session.error();
  out->session = *std::move(session);
  MethodOptions method = trial.job.trained_method(out->session->config().layers);
  method.seed = trial.seed;
  auto trained = prepare(*out->session, method);
  if (!trained) return trained.error();
  out->trained = *std::move(trained);
  std::vector<std::size_t> which(
      std::min<std::size_t>(static_cast<std::size_t>(trial.questions), study.training().size()));
  std::iota(which.begin(), which.end(), std::size_t{0});
  out->batch.push_back(choice_batch(study.training(), which));
  if (method.fixed_a && trial.job.factor == "inputs") {
    HONE_RETURN_IF_ERROR(set_input_factors(*out->session, out->trained, out->batch));
  }
  out->base.compile = out->session->options().compile;
  out->base.adapt = out->trained.adapt_exactly;
  std::vector<feedback::Perturbed> tensors;
  for (const TrainedTensor& tensor : out->trained.tensors) {
    out->base.trained.push_back(tensor.name);
    tensors.push_back({tensor.name, tensor.shape, tensor.values, tensor.fixed});
  }
  auto forward_options = trial.job.forward_options();
  if (!forward_options) return forward_options.error();
  forward_options->seed = trial.seed;
  auto forward =
      feedback::ForwardGradient::create(*out->session, out->base, std::move(tensors),
                                        *forward_options, std::make_shared<runtime::Workspace>());
  if (!forward) return forward.error();
  out->forward = *std::move(forward);
  return out;
}

}  // namespace

Result<std::vector<double>> derivatives_of(const ChoiceStudy& study, const DirectionTrial& trial) {
  auto opened = open(study, trial);
  if (!opened) return opened.error();
  auto estimate = (*opened)->forward->run((*opened)->batch, 0);
  if (!estimate) return estimate.error();
  return estimate->derivatives;
}

Result<DirectionWorth> worth_of(const ChoiceStudy& study, const DirectionTrial& trial) {
  auto opened = open(study, trial);
  if (!opened) return opened.error();
  feedback::ForwardGradient& forward = *(*opened)->forward;
  DirectionWorth worth;
  for (const TrainedTensor& tensor : (*opened)->trained.tensors) {
    if (!tensor.fixed) worth.elements += static_cast<double>(tensor.values.size());
  }
  std::vector<double> seconds;
  Result<feedback::ForwardEstimate> slopes = feedback::ForwardEstimate{};
  for (int i = 0; i < 3; ++i) {
    const double start = seconds_now();
    slopes = forward.run((*opened)->batch, 0);
    if (!slopes) return slopes.error();
    seconds.push_back(seconds_now() - start);
  }
  worth.seconds = median(seconds);
  feedback::GradientOptions plain = (*opened)->base;
  plain.forward_only = true;
  feedback::Gradient loss(*(*opened)->session, plain);
  std::vector<double> ends;  // ahead and behind of each direction
  const auto look = [&]() -> Status {
    auto outcome = loss.run((*opened)->batch[0]);
    if (!outcome) return outcome.error();
    ends.push_back(outcome->loss);
    return {};
  };
  const auto found = [&]() -> Result<std::vector<double>> { return ends; };
  const auto pairs = forward.run(feedback::Candidates{look, found, nullptr}, 0);
  if (!pairs) return pairs.error();
  const double epsilon = trial.job.epsilon;
  std::vector<double> decreases;
  for (std::size_t k = 0; k < slopes->derivatives.size(); ++k) {
    const double bend = (ends[2 * k] + ends[2 * k + 1] - 2 * slopes->loss) / (epsilon * epsilon);
    const double slope = slopes->derivatives[k];
    decreases.push_back(bend > 0 ? slope * slope / (2 * bend) : 0.0);
  }
  worth.decrease = median(decreases);
  return worth;
}

}  // namespace hone::tune

// SPDX-License-Identifier: Apache-2.0
#include "optim/rank_search.h"

#include <cmath>

#include "base/random.h"
#include "optim/estimate.h"

namespace hone::optim {
namespace {

std::vector<double> moved(std::span<const double> from, double factor,
                          std::span<const double> along) {
  std::vector<double> out(from.begin(), from.end());
  for (std::size_t i = 0; i < out.size(); ++i) out[i] += factor * along[i];
  return out;
}

}  // namespace

Status RankSearch::step(const RankingOracle& oracle) {
  Random random(options_.seed, static_cast<std::uint64_t>(step_++));
  std::vector<std::vector<double>> noises;
  std::vector<std::vector<double>> candidates;
  for (std::int64_t c = 0; c < options_.candidates; ++c) {
    std::vector<double> noise(point_.size());
    for (double& value : noise) value = double{random.normal()};
    candidates.push_back(moved(point_, options_.distance, noise));
    noises.push_back(std::move(noise));
  }
  queries_ += options_.candidates;
  const auto order = oracle(candidates, options_.ranked);
  if (!order) return order.error();
  const auto coefficients = coefficients_of_ranking(*order, options_.candidates);
  if (!coefficients) return coefficients.error();
  if (direction_.empty()) direction_.assign(point_.size(), 0.0);
  const auto rounds = static_cast<double>(rounds_++);
  for (double& value : direction_) value *= rounds / (rounds + 1);
  for (std::size_t c = 0; c < noises.size(); ++c) {
    const double factor = -(*coefficients)[c] / (rounds + 1);
    for (std::size_t i = 0; i < point_.size(); ++i) direction_[i] += factor * noises[c][i];
  }
  // The point comes last: an oracle that breaks ties by place moves only for something better.
  std::vector<std::vector<double>> line;
  double length = options_.rate;
  for (std::int64_t j = 0; j < options_.tries; ++j, length *= options_.shrink) {
    line.push_back(moved(point_, length, direction_));
  }
  line.push_back(candidates[static_cast<std::size_t>((*order)[0])]);
  line.push_back(point_);
  queries_ += static_cast<std::int64_t>(line.size());
  const auto best = oracle(line, 1);
  if (!best) return best.error();
  const auto chosen = static_cast<std::size_t>(best->at(0));
  if (chosen + 1 == line.size()) return {};
  point_ = std::move(line[chosen]);
  direction_.clear();
  rounds_ = 0;
  ++moves_;
  return {};
}

}  // namespace hone::optim

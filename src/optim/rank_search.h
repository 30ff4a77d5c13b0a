// Descent where only an order of candidates is known: ZO-RankSGD with its line search (Tang et al.
// 2024, "Zeroth-order optimization meets human feedback", algorithms 1 and 2).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/status.h"

namespace hone::optim {

// Gets points, returns the places of the best `most`, best first.
using RankingOracle = std::function<Result<std::vector<std::int64_t>>(
    std::span<const std::vector<double>> points, std::int64_t most)>;

struct RankSearchOptions {
  std::int64_t candidates = 15;  // m of a round
  std::int64_t ranked = 15;      // k of them that the oracle names
  double distance = 0.01;        // of candidates from the point: mu
  double rate = 1.0;             // the first step along the direction
  double shrink = 0.5;           // of each next one
  std::int64_t tries = 12;       // points of a line search
  std::uint64_t seed = 1;
};

class RankSearch {
 public:
  RankSearch(std::vector<double> start, RankSearchOptions options)
      : point_(std::move(start)), options_(options) {}

  // One round: candidates around the point give a direction, the mean over the rounds since the
  // point last moved; points along it, the best candidate and the point itself are compared. So no
  // round makes it worse.
  Status step(const RankingOracle& oracle);
  std::span<const double> point() const { return point_; }
  std::int64_t queries() const { return queries_; }  // points shown to the oracle
  std::int64_t moves() const { return moves_; }

 private:
  std::vector<double> point_;
  RankSearchOptions options_;
  std::vector<double> direction_;  // towards the better, not normalized
  std::int64_t rounds_ = 0;        // in direction_
  std::int64_t step_ = 0;
  std::int64_t queries_ = 0;
  std::int64_t moves_ = 0;
};

}  // namespace hone::optim

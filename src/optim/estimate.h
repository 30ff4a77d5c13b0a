// From losses and rankings to the coefficients of directions: an estimated gradient is the sum of
// coefficient times direction.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace hone::optim {

// Ranks from 0; equals share the mean of theirs.
std::vector<double> mean_ranks(std::span<const double> values);

// How derivatives along K directions become coefficients.
enum class Shaping : std::uint8_t {
  kMean,    // c_k = d_k / K (Spall 1992; MeZO, Malladi et al. 2023)
  kSpread,  // c_k = d_k / (K s), s the spread of the losses at the probes: the step's length
            // follows the landscape (FZOO, Dang et al. 2025)
  kRank,    // c_k by the rank of d_k alone, centred: any monotone change of the losses gives the
            // same step (Wierstra et al. 2014; Salimans et al. 2017)
};
Result<Shaping> shaping_named(std::string_view name);

// Values past +-clip are cut to it (QZO, 2025, eq. 8); 0: none. Returns how many were.
std::int64_t clip_derivatives(std::span<double> derivatives, double clip);

// derivatives: of the loss along each direction. Errors: kInvalidArgument where one is not finite.
// Equal derivatives share their ranks' mean. A spread of 0 gives coefficients of 0.
Result<std::vector<double>> coefficients_of(std::span<const double> derivatives, Shaping shaping);

// A ranking oracle's answer as coefficients (Tang et al., ZO-RankSGD, 2024, eq. 5): `order` are the
// k best of m candidates, best first; candidate i stands at x + mu z_i. The coefficients c_i are of
// the descent direction's opposite: x -= rate * sum c_i z_i goes towards the better ones. Edges
// (better, worse) count once: k (k - 1) / 2 + k (m - k). kInvalidArgument for a candidate that is
// none or that stands twice.
Result<std::vector<double>> coefficients_of_ranking(std::span<const std::int64_t> order,
                                                    std::int64_t candidates);

}  // namespace hone::optim

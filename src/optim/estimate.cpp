// SPDX-License-Identifier: Apache-2.0
#include "optim/estimate.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

namespace hone::optim {
namespace {

// In [-1/2, 1/2].
std::vector<double> centred_ranks(std::span<const double> values) {
  std::vector<double> ranks = mean_ranks(values);
  if (values.size() < 2) return ranks;
  const double top = static_cast<double>(values.size() - 1);
  for (double& rank : ranks) rank = rank / top - 0.5;
  return ranks;
}

double spread_of(std::span<const double> values) {
  const auto count = static_cast<double>(values.size());
  const double mean = std::accumulate(values.begin(), values.end(), 0.0) / count;
  double squares = 0;
  for (const double value : values) squares += (value - mean) * (value - mean);
  return std::sqrt(squares / count);
}

}  // namespace

std::vector<double> mean_ranks(std::span<const double> values) {
  std::vector<std::size_t> order(values.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::sort(order, {}, [&](std::size_t i) { return values[i]; });
  std::vector<double> ranks(values.size());
  for (std::size_t first = 0, end = 0; first < order.size(); first = end) {
    while (end < order.size() && values[order[end]] == values[order[first]]) ++end;
    for (std::size_t i = first; i < end; ++i) {
      ranks[order[i]] = static_cast<double>(first + end - 1) / 2;
    }
  }
  return ranks;
}

Result<Shaping> shaping_named(std::string_view name) {
  if (name == "mean") return Shaping::kMean;
  if (name == "spread") return Shaping::kSpread;
  if (name == "rank") return Shaping::kRank;
  return Error{ErrorCode::kInvalidArgument, "there is no such shaping", "--shaping",
               std::string(name),           "mean, spread or rank",     ""};
}

std::int64_t clip_derivatives(std::span<double> derivatives, double clip) {
  if (clip <= 0) return 0;
  std::int64_t clipped = 0;
  for (double& value : derivatives) {
    if (std::abs(value) <= clip) continue;
    value = std::copysign(clip, value);
    ++clipped;
  }
  return clipped;
}

Result<std::vector<double>> coefficients_of(std::span<const double> derivatives, Shaping shaping) {
  for (const double value : derivatives) {
    if (std::isfinite(value)) continue;
    return Error{ErrorCode::kInvalidArgument,
                 "a loss along a direction is not finite",
                 "",
                 fmt::format("{}", value),
                 "finite losses",
                 "lower --learning-rate or --epsilon"};
  }
  const auto count = static_cast<double>(derivatives.size());
  std::vector<double> coefficients(derivatives.begin(), derivatives.end());
  if (shaping == Shaping::kRank) coefficients = centred_ranks(derivatives);
  double factor = 1 / count;
  if (shaping == Shaping::kSpread) {
    const double spread = spread_of(derivatives);
    factor = spread > 0 ? 1 / (count * spread) : 0;
  }
  for (double& value : coefficients) value *= factor;
  return coefficients;
}

Result<std::vector<double>> coefficients_of_ranking(std::span<const std::int64_t> order,
                                                    std::int64_t candidates) {
  const auto m = static_cast<double>(candidates);
  const auto k = static_cast<double>(order.size());
  std::vector<double> coefficients(static_cast<std::size_t>(std::max<std::int64_t>(candidates, 0)));
  std::vector<bool> ranked(coefficients.size(), false);
  const double edges = k * (k - 1) / 2 + k * (m - k);
  if (order.empty() || edges <= 0) {
    return Error{ErrorCode::kInvalidArgument,
                 "a ranking needs at least two candidates and the best of them",
                 "",
                 fmt::format("{} of {}", order.size(), candidates),
                 "",
                 ""};
  }
  for (std::size_t r = 0; r < order.size(); ++r) {
    const std::int64_t which = order[r];
    if (which < 0 || which >= candidates || ranked[static_cast<std::size_t>(which)]) {
      return Error{ErrorCode::kInvalidArgument,
                   "the ranking does not name different candidates",
                   fmt::format("place {}", r + 1),
                   fmt::format("{}", which),
                   fmt::format("each of 0 to {} once at most", candidates - 1),
                   ""};
    }
    ranked[static_cast<std::size_t>(which)] = true;
    // Better than those behind it, worse than those before it: m - 1 - 2 r edges net.
    coefficients[static_cast<std::size_t>(which)] = -(m - 1 - 2 * static_cast<double>(r)) / edges;
  }
  for (std::size_t i = 0; i < coefficients.size(); ++i) {
    if (!ranked[i]) coefficients[i] = k / edges;
  }
  return coefficients;
}

}  // namespace hone::optim

// SPDX-License-Identifier: Apache-2.0
#include "tune/correlation.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "base/random.h"

namespace hone::tune {
namespace {

std::vector<double> ranks_of(std::span<const double> values) {
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

}  // namespace

double rank_correlation(std::span<const double> a, std::span<const double> b) {
  const std::vector<double> x = ranks_of(a), y = ranks_of(b);
  const double mean = (static_cast<double>(x.size()) - 1) / 2;
  double xx = 0, yy = 0, xy = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    xx += (x[i] - mean) * (x[i] - mean);
    yy += (y[i] - mean) * (y[i] - mean);
    xy += (x[i] - mean) * (y[i] - mean);
  }
  return xx > 0 && yy > 0 ? xy / std::sqrt(xx * yy) : 0;
}

std::string Correlation::text() const {
  return fmt::format("{:.2f} [{:.2f}, {:.2f}]", value, low, high);
}

Correlation resampled_correlation(std::span<const double> a, std::span<const double> b,
                                  std::uint64_t seed) {
  constexpr std::size_t kSamples = 1000;
  Random random(seed);
  std::vector<double> found(kSamples), x(a.size()), y(a.size());
  for (double& each : found) {
    for (std::size_t i = 0; i < x.size(); ++i) {
      const std::uint32_t row = random.below(static_cast<std::uint32_t>(a.size()));
      x[i] = a[row];
      y[i] = b[row];
    }
    each = rank_correlation(x, y);
  }
  std::ranges::sort(found);
  return {rank_correlation(a, b), found[kSamples * 25 / 1000], found[kSamples * 975 / 1000 - 1]};
}

}  // namespace hone::tune

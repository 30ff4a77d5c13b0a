// SPDX-License-Identifier: Apache-2.0
#include "tune/correlation.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "base/random.h"
#include "optim/estimate.h"

namespace hone::tune {

double linear_correlation(std::span<const double> a, std::span<const double> b) {
  const auto count = static_cast<double>(a.size());
  const double mean_a = std::accumulate(a.begin(), a.end(), 0.0) / count;
  const double mean_b = std::accumulate(b.begin(), b.end(), 0.0) / count;
  double aa = 0, bb = 0, ab = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    aa += (a[i] - mean_a) * (a[i] - mean_a);
    bb += (b[i] - mean_b) * (b[i] - mean_b);
    ab += (a[i] - mean_a) * (b[i] - mean_b);
  }
  return aa > 0 && bb > 0 ? ab / std::sqrt(aa * bb) : 0;
}

double rank_correlation(std::span<const double> a, std::span<const double> b) {
  return linear_correlation(optim::mean_ranks(a), optim::mean_ranks(b));
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

// How two columns of numbers go together.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace hone::tune {

// Pearson's; 0 where one column is constant or there are less than two rows.
double linear_correlation(std::span<const double> a, std::span<const double> b);

// Spearman's rank correlation, ties with their mean rank; 0 where one column is constant or there
// are less than two rows.
double rank_correlation(std::span<const double> a, std::span<const double> b);

// With its 95 % interval by 1,000 resamplings of rows (Efron 1979).
struct Correlation {
  double value = 0, low = 0, high = 0;
  std::string text() const;  // "0.80 [0.31, 0.95]"
};
Correlation resampled_correlation(std::span<const double> a, std::span<const double> b,
                                  std::uint64_t seed);

}  // namespace hone::tune

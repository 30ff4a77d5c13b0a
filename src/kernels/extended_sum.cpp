// Merging and taking the logarithm of sums that carry their own exponent.
// SPDX-License-Identifier: Apache-2.0
#include "kernels/extended_sum.h"

#include <cmath>
#include <numbers>

namespace hone::kernels {

ExtendedSum merge(ExtendedSum a, ExtendedSum b) {
  if (a.exponent < b.exponent) {
    const ExtendedSum swapped = a;
    a = b;
    b = swapped;
  }
  // Past 2^-64 the smaller one is far below half a unit in the last place.
  const float distance = b.exponent - a.exponent;
  if (!(distance > -64.0f)) return b.mantissa == 0.0f || a.mantissa != 0.0f ? a : b;
  int shift = 0;
  const double sum = std::frexp(
      a.mantissa + std::ldexp(static_cast<double>(b.mantissa), static_cast<int>(distance)), &shift);
  if (sum == 0.0) return {};
  return {static_cast<float>(sum * 2.0), a.exponent + static_cast<float>(shift - 1)};
}

double log_of(ExtendedSum sum) {
  return std::log(static_cast<double>(sum.mantissa)) +
         static_cast<double>(sum.exponent) * std::numbers::ln2;
}

}  // namespace hone::kernels

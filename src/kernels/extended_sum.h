// A positive sum as mantissa * 2^exponent, so that sums of e^x neither overflow nor need a maximum.
// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace hone::kernels {

// mantissa >= 0 (below 2 as made by the kernels), exponent an integer. Pieces of a row (vocabulary
// tiles, threads) are summed apart and merged; the default is the empty sum.
struct ExtendedSum {
  float mantissa = 0.0f;
  float exponent = -0x1p24f;
};

// The sum of both; associative and commutative up to rounding.
ExtendedSum merge(ExtendedSum a, ExtendedSum b);

// ln(mantissa * 2^exponent); -infinity for the empty sum.
double log_of(ExtendedSum sum);

}  // namespace hone::kernels

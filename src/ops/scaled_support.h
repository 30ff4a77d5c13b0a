// What products with scaled weights share: each weight of a group of columns times one factor.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "ops/support.h"

namespace hone::ops {

// Factors (R, K / group) of a weight (R, K); deltas around 1 unless the attribute `delta` is set.
inline bool fits_factors(const Type& weight, const Type& factors) {
  return is_weight(weight) && is_dense(factors) && factors.shape.size() == 2 &&
         factors.rows() == weight.rows() && factors.columns() > 0 &&
         weight.columns() % factors.columns() == 0;
}

// The weight as the product sees it.
inline Tensor scaled_weight(const Tensor& weight, const Tensor& factors,
                            const Attributes& attributes) {
  Tensor out = weight;
  const double base = attributes.flag("delta") ? 0 : 1;
  const auto group = static_cast<std::size_t>(weight.type.columns() / factors.type.columns());
  for (std::size_t i = 0; i < out.data.size(); ++i) out.data[i] *= base + factors.data[i / group];
  return out;
}

}  // namespace hone::ops

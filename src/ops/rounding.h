// The attribute `rounding` of products: "bf16" rounds both operands first; sums stay f32.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "base/half.h"
#include "ops/support.h"

namespace hone::ops {

inline bool rounds_to_bf16(const Attributes& attributes) {
  return attributes.text("rounding") == "bf16";
}

// Absent, or one that products know, of operands that are not int8 already.
inline bool fits_rounding(const Attributes& attributes, const Type& rows) {
  if (attributes.find("rounding") == nullptr) return true;
  return rounds_to_bf16(attributes) && rows.layout == Layout::kRowMajor;
}

// The operand as the product sees it.
inline Tensor rounded(const Tensor& tensor, const Attributes& attributes) {
  Tensor out = tensor;
  if (!rounds_to_bf16(attributes)) return out;
  for (double& value : out.data) {
    value = static_cast<double>(bf16_to_f32(f32_to_bf16(static_cast<float>(value))));
  }
  return out;
}

}  // namespace hone::ops

// What a norm takes from a row, for those who need the row's normalized form again.
// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace hone::kernels {

// inverse = 1 / sqrt(mean((x - mean)^2) + epsilon); the mean counts as 0 where it is not taken off
// (RMS norm).
struct RowMoments {
  float mean = 0.0f;
  float inverse = 0.0f;
};

}  // namespace hone::kernels

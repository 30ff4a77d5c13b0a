// The reference form of the cache: slot after slot, keys then values of all heads.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "ir/op.h"

namespace hone::ops {

// Tokens in one page of the cache (kernels/attention.h): slot = page * 32 + token in page.
inline constexpr std::int64_t kPageTokens = 32;

void write_cache(const ir::Tensor& cache, const ir::Tensor& keys, const ir::Tensor& values,
                 const ir::Tensor& slots, ir::Tensor& out);

}  // namespace hone::ops

// What running a model will need of memory, said before anything is taken.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "base/status.h"
#include "engine/model_source.h"
#include "models/family.h"

namespace hone::engine {

struct CacheBytes {  // of one token in all layers, keys and values
  std::int64_t f16 = 0;
  std::int64_t int8 = 0;
  std::int64_t f32 = 0;
};

struct MemoryNeed {
  models::Config config;
  std::int64_t weights = 0;  // in the layout of the kernels
  CacheBytes cache_per_token;
  // Intermediate values of one step of `batch` tokens whose last token's logits are wanted: an
  // estimate from above of what the plan will share.
  std::int64_t workspace = 0;
};

// Errors of the family's configure(), and kUnsupported for an architecture without a family.
Result<MemoryNeed> memory_of(const ModelSource& source, std::int64_t batch = 256);

}  // namespace hone::engine

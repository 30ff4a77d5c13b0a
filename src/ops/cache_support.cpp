// SPDX-License-Identifier: Apache-2.0
#include "ops/cache_support.h"

#include <algorithm>

namespace hone::ops {

void write_cache(const ir::Tensor& cache, const ir::Tensor& keys, const ir::Tensor& values,
                 const ir::Tensor& slots, ir::Tensor& out) {
  const auto width = static_cast<std::size_t>(cache.type.elements());
  out.data = cache.data;
  for (std::size_t n = 0; n < slots.data.size(); ++n) {
    const std::size_t start = static_cast<std::size_t>(slots.data[n]) * 2 * width;
    out.data.resize(std::max(out.data.size(), start + 2 * width), 0.0);
    for (std::size_t i = 0; i < width; ++i) {
      out.data[start + i] = keys.data[n * width + i];
      out.data[start + width + i] = values.data[n * width + i];
    }
  }
}

}  // namespace hone::ops

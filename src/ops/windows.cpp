// SPDX-License-Identifier: Apache-2.0
#include "ops/windows.h"

namespace hone::ops {
namespace {

// Sizes of images that are refused: products of four of them must not overflow.
constexpr std::int64_t kMost = 1 << 15;

bool is_size(std::int64_t value) { return value > 0 && value <= kMost; }

}  // namespace

std::optional<PatchWindows> patch_windows(const ir::Attributes& attributes) {
  const PatchWindows found{attributes.integer("height"), attributes.integer("width"),
                           attributes.integer("kernel"), attributes.integer("stride", 1),
                           attributes.integer("padding")};
  const bool fits = is_size(found.height) && is_size(found.width) && is_size(found.kernel) &&
                    is_size(found.stride) && found.padding >= 0 && found.padding < found.kernel &&
                    found.kernel <= found.height + 2 * found.padding &&
                    found.kernel <= found.width + 2 * found.padding;
  if (!fits) return std::nullopt;
  return found;
}

std::optional<PoolWindows> pool_windows(const ir::Attributes& attributes) {
  const PoolWindows found{attributes.integer("height"), attributes.integer("width"),
                          attributes.integer("rows"), attributes.integer("columns")};
  const bool fits = is_size(found.height) && is_size(found.width) && is_size(found.rows) &&
                    is_size(found.columns) && found.height % found.rows == 0 &&
                    found.width % found.columns == 0;
  if (!fits) return std::nullopt;
  return found;
}

}  // namespace hone::ops

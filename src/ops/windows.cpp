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

std::int64_t patch_pixel(const PatchWindows& windows, std::int64_t position, std::int64_t column,
                         std::int64_t channels) {
  const std::int64_t inside = position % windows.positions();
  const std::int64_t tap = column / channels;
  const std::int64_t y = inside / windows.out_width() * windows.stride + tap / windows.kernel;
  const std::int64_t x = inside % windows.out_width() * windows.stride + tap % windows.kernel;
  const std::int64_t row = y - windows.padding;
  const std::int64_t at = x - windows.padding;
  if (row < 0 || row >= windows.height || at < 0 || at >= windows.width) return -1;
  return position / windows.positions() * windows.pixels() + row * windows.width + at;
}

std::size_t largest_under(const PoolWindows& windows, std::span<const double> x,
                          std::int64_t channels, std::int64_t i) {
  std::size_t best = 0;
  for (std::int64_t tap = 0; tap < windows.rows * windows.columns; ++tap) {
    const std::int64_t pixel =
        pixel_of(windows, i / channels, tap / windows.columns, tap % windows.columns);
    const auto at = static_cast<std::size_t>(pixel * channels + i % channels);
    if (tap == 0 || x[at] > x[best]) best = at;
  }
  return best;
}

}  // namespace hone::ops

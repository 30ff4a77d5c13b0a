// Windows over images whose pixels are rows: (N * height * width, C), the channels of a pixel side
// by side, images one after another. What convolution and pooling share.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <optional>
#include <span>

#include "ir/op.h"

namespace hone::ops {

// Square windows of `kernel` pixels, `stride` apart, over an image with `padding` pixels of zeros
// around it.
struct PatchWindows {
  std::int64_t height = 0, width = 0;
  std::int64_t kernel = 0, stride = 1, padding = 0;

  std::int64_t out_height() const { return (height + 2 * padding - kernel) / stride + 1; }
  std::int64_t out_width() const { return (width + 2 * padding - kernel) / stride + 1; }
  std::int64_t pixels() const { return height * width; }
  std::int64_t positions() const { return out_height() * out_width(); }
  std::int64_t taps() const { return kernel * kernel; }
};
// Of the attributes height, width, kernel, stride (1) and padding (0); nothing where they make no
// window.
std::optional<PatchWindows> patch_windows(const ir::Attributes& attributes);

// The pixel (a row) that column `column` of row `position` of the patches shows, `channels` a
// pixel; -1 in the padding.
std::int64_t patch_pixel(const PatchWindows& windows, std::int64_t position, std::int64_t column,
                         std::int64_t channels);

// Windows of (rows, columns) pixels side by side that fill the image.
struct PoolWindows {
  std::int64_t height = 0, width = 0;
  std::int64_t rows = 0, columns = 0;

  std::int64_t out_width() const { return width / columns; }
  std::int64_t pixels() const { return height * width; }
  std::int64_t positions() const { return pixels() / (rows * columns); }
};
// Of the attributes height, width, rows and columns, where the windows fill the image.
std::optional<PoolWindows> pool_windows(const ir::Attributes& attributes);

// The pixel (a row) at (y, x) of the window at `position`, a row of the pooled value.
inline std::int64_t pixel_of(const PoolWindows& windows, std::int64_t position, std::int64_t y,
                             std::int64_t x) {
  const std::int64_t image = position / windows.positions();
  const std::int64_t inside = position % windows.positions();
  const std::int64_t row = inside / windows.out_width() * windows.rows + y;
  const std::int64_t column = inside % windows.out_width() * windows.columns + x;
  return image * windows.pixels() + row * windows.width + column;
}

// Where the first of the largest elements under a window stands in x (…, channels): that of element
// i of the pooled value.
std::size_t largest_under(const PoolWindows& windows, std::span<const double> x,
                          std::int64_t channels, std::int64_t i);

}  // namespace hone::ops

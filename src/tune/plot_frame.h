// What the drawn series span, and the round numbers along the axes.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "tune/plot.h"

namespace hone::tune::plot_detail {

struct Frame {
  bool empty = true;  // there is nothing to draw
  double x_least = 0, x_most = 1, y_least = 0, y_most = 1;
  std::vector<double> x_ticks, y_ticks;

  // Where in the frame: 0 to 1, from the left and from below.
  double x_share(double x) const { return (x - x_least) / (x_most - x_least); }
  double y_share(double y) const { return (y - y_least) / (y_most - y_least); }
};

// `round_ends`: along y from a tick to a tick; else the data fill the height. The numbers of ticks
// are wishes.
Frame frame_of(std::span<const Series> series, int x_ticks, int y_ticks, bool round_ends);

inline std::size_t points_of(const Series& series) {
  return std::min(series.x.size(), series.y.size());
}
// Not a gap. Beyond 1e300 the span of an axis could not be represented.
inline bool is_point(const Series& series, std::size_t i) {
  constexpr double kMost = 1e300;
  return std::abs(series.x[i]) <= kMost && std::abs(series.y[i]) <= kMost;
}

}  // namespace hone::tune::plot_detail

// Line charts as text: for a terminal, and as an SVG document. Pure functions.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string>
#include <vector>

namespace hone::tune {

// Points in order of x. What is not finite makes a gap. x and y are equally long.
struct Series {
  std::string name;
  std::vector<double> x;
  std::vector<double> y;
};

struct ChartLabels {
  std::string title;
  std::string x;  // "step"
  std::string y;  // "loss"
};

// Lines of at most `width` columns, `height` rows of drawing with axes and one row a series for the
// legend (none for a single series without a name). Braille dots, 2 x 4 a character. With `color`
// each series has its own; without, each has a letter on its line.
std::string terminal_chart(std::span<const Series> series, int width, int height, bool color,
                           const ChartLabels& labels = {});

// A document of its own: axes, grid, legend; colours that colour-blind readers tell apart, and
// dashes besides. Width and height in pixels.
std::string svg_chart(std::span<const Series> series, const ChartLabels& labels = {},
                      int width = 800, int height = 480);

// The mean of a window of `points` values around each point (itself alone for 1), which ends of the
// series and gaps make smaller.
Series smoothed(const Series& series, int points);

namespace plot_detail {  // for the tests
// Round numbers from at or below `least` to at or above `most`, `wanted` or somewhat more or fewer.
std::vector<double> ticks(double least, double most, int wanted);
// As short as it can be and still tell neighbours `step` apart: "0.25", "1200", "3e-05".
std::string tick_text(double value, double step);
}  // namespace plot_detail

}  // namespace hone::tune

// What both charts share: ranges, ticks, smoothing; and the chart for terminals.
// SPDX-License-Identifier: Apache-2.0
#include "tune/plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdlib>

#include "tune/plot_frame.h"

namespace hone::tune {

namespace plot_detail {

std::vector<double> ticks(double least, double most, int wanted) {
  const double span = most - least;
  if (!(span > 0) || !std::isfinite(span)) return {least};
  const double rough = span / std::max(wanted - 1, 1);
  const double power = std::pow(10.0, std::floor(std::log10(rough)));
  double step = 10 * power;
  for (const double factor : {1.0, 2.0, 2.5, 5.0}) {
    if (factor * power >= rough * 0.75) {
      step = factor * power;
      break;
    }
  }
  std::vector<double> out;
  const double first = std::floor(least / step + 1e-9);
  const double last = std::ceil(most / step - 1e-9);
  for (double i = first; i <= last && out.size() < 1000; ++i) out.push_back(i * step);
  return out;
}

std::string tick_text(double value, double step) {
  const double size = std::max(std::abs(value), std::abs(step));
  if (size != 0 && (size >= 1e6 || std::abs(step) < 1e-4)) return fmt::format("{:.3g}", value);
  // As many decimals as the step has, which is 1, 2, 2.5 or 5 times a power of ten.
  int decimals = 0;
  for (double scaled = std::abs(step); decimals < 7; ++decimals, scaled *= 10) {
    if (std::abs(scaled - std::round(scaled)) < 1e-6 * std::max(scaled, 1.0) &&
        std::round(scaled) != 0) {
      break;
    }
    if (scaled == 0) break;
  }
  return fmt::format("{:.{}f}", value == 0 ? 0.0 : value, decimals);
}

namespace {

// Round numbers inside of [least, most], at least two.
std::vector<double> ticks_within(double least, double most, int wanted) {
  const double slack = (most - least) * 1e-9;
  std::vector<double> inside;
  for (int attempt = 0; attempt < 3 && inside.size() < 2; ++attempt, wanted *= 2) {
    inside.clear();
    for (const double tick : ticks(least, most, wanted)) {
      if (tick >= least - slack && tick <= most + slack) inside.push_back(tick);
    }
  }
  return inside;
}

}  // namespace

Frame frame_of(std::span<const Series> series, int x_ticks, int y_ticks, bool round_ends) {
  Frame frame;
  double x_least = INFINITY, x_most = -INFINITY, y_least = INFINITY, y_most = -INFINITY;
  for (const Series& one : series) {
    for (std::size_t i = 0; i < points_of(one); ++i) {
      if (!is_point(one, i)) continue;
      x_least = std::min(x_least, one.x[i]);
      x_most = std::max(x_most, one.x[i]);
      y_least = std::min(y_least, one.y[i]);
      y_most = std::max(y_most, one.y[i]);
    }
  }
  if (x_least > x_most) return frame;
  frame.empty = false;
  // A single point or a flat line gets some room around.
  const auto widen = [](double& least, double& most) {
    if (most > least) return;
    const double room = least == 0 ? 1 : std::max(std::abs(least) * 0.1, 1e-9);
    least -= room;
    most += room;
  };
  widen(y_least, y_most);
  widen(x_least, x_most);
  frame.y_least = y_least;
  frame.y_most = y_most;
  if (round_ends) {
    frame.y_ticks = ticks(y_least, y_most, y_ticks);
    frame.y_least = std::min(frame.y_ticks.front(), y_least);
    frame.y_most = std::max(frame.y_ticks.back(), y_most);
  } else {
    frame.y_ticks = ticks_within(y_least, y_most, y_ticks);
  }
  frame.x_least = x_least;
  frame.x_most = x_most;
  frame.x_ticks = ticks_within(x_least, x_most, x_ticks);
  return frame;
}

}  // namespace plot_detail

namespace {

using plot_detail::Frame;
using plot_detail::is_point;
using plot_detail::points_of;

// Of 16 colours, so that the terminal's own theme decides how they look.
constexpr std::array<int, 6> kColors = {36, 33, 35, 32, 34, 31};

std::string letter_of(std::size_t series) {
  return std::string(1, static_cast<char>('A' + series % 26));
}

// Characters of 2 x 4 dots; one series a character, the later one wins.
class Canvas {
 public:
  Canvas(int columns, int rows)
      : columns_(columns), rows_(rows), cells_(static_cast<std::size_t>(columns * rows)) {}

  int dots_wide() const { return columns_ * 2; }
  int dots_high() const { return rows_ * 4; }

  void dot(int x, int y, std::size_t series) {
    if (x < 0 || y < 0 || x >= dots_wide() || y >= dots_high()) return;
    // Unicode's numbering: dots 1-3 and 7 in the left column, 4-6 and 8 in the right.
    constexpr std::array<std::array<std::uint8_t, 2>, 4> kBits = {
        {{0x01, 0x08}, {0x02, 0x10}, {0x04, 0x20}, {0x40, 0x80}}};
    Cell& cell = at(x / 2, y / 4);
    if (cell.series != series) cell = {0, series, false};
    cell.bits = static_cast<std::uint8_t>(
        cell.bits | kBits[static_cast<std::size_t>(y % 4)][static_cast<std::size_t>(x % 2)]);
  }
  // Bresenham's line.
  void line(int x0, int y0, int x1, int y1, std::size_t series) {
    const int dx = std::abs(x1 - x0), dy = -std::abs(y1 - y0);
    const int step_x = x0 < x1 ? 1 : -1, step_y = y0 < y1 ? 1 : -1;
    int error = dx + dy;
    while (true) {
      dot(x0, y0, series);
      if (x0 == x1 && y0 == y1) return;
      const int twice = 2 * error;
      if (twice >= dy) {
        error += dy;
        x0 += step_x;
      }
      if (twice <= dx) {
        error += dx;
        y0 += step_y;
      }
    }
  }
  // A letter in place of some dots of the series, every `spacing` columns.
  void letters(std::size_t series, int first, int spacing) {
    for (int column = first; column < columns_; column += spacing) {
      for (int row = 0; row < rows_; ++row) {
        Cell& cell = at(column, row);
        if (cell.bits == 0 || cell.series != series) continue;
        cell.letter = true;
        break;
      }
    }
  }
  std::string row(int row, bool color) const {
    std::string out;
    int last = 0;  // the colour that is on; 0: none
    for (int column = 0; column < columns_; ++column) {
      const Cell& cell = cells_[static_cast<std::size_t>(row * columns_ + column)];
      const int wanted = color && cell.bits != 0 ? kColors[cell.series % kColors.size()] : 0;
      if (wanted != last && cell.bits != 0) out += fmt::format("\x1b[{}m", wanted);
      if (cell.bits != 0) last = wanted;
      if (cell.bits == 0) {
        out += ' ';
      } else if (cell.letter) {
        out += letter_of(cell.series);
      } else {
        const unsigned code = 0x2800u + cell.bits;  // UTF-8: three bytes
        out += static_cast<char>(0xE0 | (code >> 12));
        out += static_cast<char>(0x80 | ((code >> 6) & 0x3F));
        out += static_cast<char>(0x80 | (code & 0x3F));
      }
    }
    out.erase(out.find_last_not_of(' ') + 1);
    return last == 0 ? out : out + "\x1b[0m";
  }

 private:
  struct Cell {
    std::uint8_t bits = 0;
    std::size_t series = 0;
    bool letter = false;
  };
  Cell& at(int column, int row) {
    return cells_[static_cast<std::size_t>(row * columns_ + column)];
  }

  int columns_;
  int rows_;
  std::vector<Cell> cells_;
};

void draw(Canvas& canvas, const Series& one, std::size_t index, const Frame& frame) {
  const auto x_of = [&](double x) {
    return static_cast<int>(std::lround(frame.x_share(x) * (canvas.dots_wide() - 1)));
  };
  const auto y_of = [&](double y) {
    return static_cast<int>(std::lround((1 - frame.y_share(y)) * (canvas.dots_high() - 1)));
  };
  bool drawing = false;
  int last_x = 0, last_y = 0;
  for (std::size_t i = 0; i < points_of(one); ++i) {
    if (!is_point(one, i)) {
      drawing = false;
      continue;
    }
    const int x = x_of(one.x[i]);
    const int y = y_of(one.y[i]);
    if (drawing) {
      canvas.line(last_x, last_y, x, y, index);
    } else {
      canvas.dot(x, y, index);
    }
    last_x = x;
    last_y = y;
    drawing = true;
  }
}

// Columns, for texts of any script that take one column a character.
std::size_t columns_of(std::string_view text) {
  return static_cast<std::size_t>(std::ranges::count_if(
      text, [](char byte) { return (static_cast<unsigned char>(byte) & 0xC0) != 0x80; }));
}

std::string shortened(const std::string& text, std::size_t columns) {
  if (columns_of(text) <= columns) return text;
  std::string out;
  std::size_t used = 0;
  for (const char byte : text) {
    if ((static_cast<unsigned char>(byte) & 0xC0) != 0x80 && ++used >= columns) break;
    out += byte;
  }
  return out + "…";
}

// Axis and numbers under the drawing: each number centred under its tick, where there is room.
std::string bottom(const Frame& frame, std::size_t margin, int columns, const std::string& label) {
  const auto width = static_cast<std::size_t>(columns);
  std::vector<std::string> axis(width, "─");
  std::string numbers(margin + 1 + width, ' ');
  std::size_t free_from = 0;
  const double step = frame.x_ticks.size() > 1 ? frame.x_ticks[1] - frame.x_ticks[0] : 0;
  for (const double tick : frame.x_ticks) {
    const auto column = static_cast<std::size_t>(
        std::lround(frame.x_share(tick) * static_cast<double>(columns - 1)));
    axis[column] = "┴";
    const std::string text = plot_detail::tick_text(tick, step);
    std::size_t at = margin + 1 + column;
    at -= std::min(at, text.size() / 2);
    if (at + text.size() > numbers.size())
      at = numbers.size() - std::min(numbers.size(), text.size());
    if (at < free_from || text.size() > numbers.size()) continue;
    numbers.replace(at, text.size(), text);
    free_from = at + text.size() + 1;
  }
  std::string line(margin, ' ');
  line += "└";
  for (const std::string& piece : axis) line += piece;
  numbers.erase(numbers.find_last_not_of(' ') + 1);
  const bool room = numbers.size() + 2 + columns_of(label) <= margin + 1 + width;
  if (!label.empty() && room) numbers += "  " + label;
  return line + "\n" + numbers + "\n";
}

std::string last_value(const Series& one) {
  for (std::size_t i = points_of(one); i-- > 0;) {
    if (is_point(one, i)) return fmt::format("{:.4g} at {:g}", one.y[i], one.x[i]);
  }
  return "no values";
}

}  // namespace

std::string terminal_chart(std::span<const Series> series, int width, int height, bool color,
                           const ChartLabels& labels) {
  constexpr int kLeastWidth = 24, kMostWidth = 400, kLeastHeight = 3, kMostHeight = 100;
  width = std::clamp(width, kLeastWidth, kMostWidth);
  height = std::clamp(height, kLeastHeight, kMostHeight);
  const auto all = static_cast<std::size_t>(width);
  std::string title = labels.title;
  if (!labels.y.empty()) title += (title.empty() ? "" : ": ") + labels.y;
  std::string out = title.empty() ? "" : shortened(title, all) + "\n";
  const Frame frame =
      plot_detail::frame_of(series, std::max(3, width / 14), std::max(3, height / 3), false);
  if (frame.empty) return out + "(no values to draw)\n";

  const double step = frame.y_ticks.size() > 1 ? frame.y_ticks[1] - frame.y_ticks[0] : 0;
  std::vector<std::string> margin_texts(static_cast<std::size_t>(height));
  for (const double tick : frame.y_ticks) {
    const auto row = static_cast<std::size_t>(
        std::lround((1 - frame.y_share(tick)) * static_cast<double>(height - 1)));
    margin_texts[row] = plot_detail::tick_text(tick, step);
  }
  std::size_t margin = 0;
  for (const std::string& text : margin_texts) margin = std::max(margin, text.size());
  const int columns = std::max(8, width - static_cast<int>(margin) - 1);
  Canvas canvas(columns, height);
  for (std::size_t i = 0; i < series.size(); ++i) draw(canvas, series[i], i, frame);
  const bool with_letters = !color && series.size() > 1;
  if (with_letters) {
    const int spacing = std::max(4, columns / 6);
    for (std::size_t i = 0; i < series.size(); ++i) {
      const auto first = static_cast<int>(i) * spacing / static_cast<int>(series.size());
      canvas.letters(i, first + 1, spacing);
    }
  }
  for (int row = 0; row < height; ++row) {
    const std::string& text = margin_texts[static_cast<std::size_t>(row)];
    out += std::string(margin - text.size(), ' ') + text + (text.empty() ? "│" : "┤") +
           canvas.row(row, color) + "\n";
  }
  out += bottom(frame, margin, columns, labels.x);
  for (std::size_t i = 0; i < series.size(); ++i) {
    if (series.size() == 1 && series[i].name.empty()) break;
    const std::string mark = with_letters ? letter_of(i) : "──";
    std::string value = "  " + last_value(series[i]);
    std::size_t indent = margin + 1;
    // In a narrow terminal the name comes first, then the value, then where they stand.
    constexpr std::size_t kLeastName = 8;
    const std::size_t tight = columns_of(mark) + 1 + kLeastName;
    if (indent + tight + value.size() > all) indent = 0;
    if (tight + value.size() > all) value.clear();
    const std::string name =
        shortened(series[i].name, all - indent - columns_of(mark) - 1 - value.size());
    out += std::string(indent, ' ');
    out += color ? fmt::format("\x1b[{}m{}\x1b[0m", kColors[i % kColors.size()], mark) : mark;
    out += fmt::format(" {}{}\n", name, value);
  }
  return out;
}

Series smoothed(const Series& series, int points) {
  Series out = series;
  const auto count = static_cast<std::ptrdiff_t>(points_of(series));
  const std::ptrdiff_t half = std::max(points, 1) / 2;
  // Running sums would lose digits behind a huge value; windows are small.
  for (std::ptrdiff_t i = 0; i < count; ++i) {
    if (!is_point(series, static_cast<std::size_t>(i))) continue;
    double sum = 0;
    double used = 0;
    const std::ptrdiff_t end = std::min(count, i - half + std::max(points, 1));
    for (std::ptrdiff_t j = std::max<std::ptrdiff_t>(0, i - half); j < end; ++j) {
      const auto at = static_cast<std::size_t>(j);
      if (!is_point(series, at)) continue;
      sum += series.y[at];
      used += 1;
    }
    out.y[static_cast<std::size_t>(i)] = sum / used;
  }
  return out;
}

}  // namespace hone::tune

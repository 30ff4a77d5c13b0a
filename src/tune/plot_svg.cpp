// The chart as an SVG document.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <array>
#include <string_view>

#include "tune/plot.h"
#include "tune/plot_frame.h"

namespace hone::tune {
namespace {

using plot_detail::Frame;
using plot_detail::is_point;
using plot_detail::points_of;

// Okabe and Ito's palette, without its yellow, which white paper swallows.
constexpr std::array<std::string_view, 7> kColors = {"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                                     "#56b4e9", "#e69f00", "#000000"};
constexpr std::array<std::string_view, 4> kDashes = {"", "8 4", "2 3", "10 4 2 4"};

// Characters that XML reserves as entities; those that it forbids, left out.
std::string escaped(std::string_view text) {
  std::string out;
  for (const char byte : text) {
    switch (byte) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      default:
        if (static_cast<unsigned char>(byte) >= 0x20) out += byte;
    }
  }
  return out;
}

struct Area {
  double left, top, right, bottom;
};

// One path; where several points share a pixel column only their first, least, most and last are
// kept, so that long runs make small files that look the same.
std::string path_of(const Series& one, const Frame& frame, const Area& area) {
  std::string path;
  const auto x_of = [&](double x) {
    return area.left + frame.x_share(x) * (area.right - area.left);
  };
  const auto y_of = [&](double y) {
    return area.bottom - frame.y_share(y) * (area.bottom - area.top);
  };
  bool drawing = false;
  const auto put = [&](double x, double y) {
    path += fmt::format("{}{:.1f} {:.1f}", drawing ? "L" : "M", x, y);
    drawing = true;
  };
  std::size_t i = 0;
  while (i < points_of(one)) {
    if (!is_point(one, i)) {
      drawing = false;
      ++i;
      continue;
    }
    const double x = x_of(one.x[i]);
    const double first = y_of(one.y[i]);
    double least = first, most = first, last = first;
    std::size_t count = 0;
    for (; i < points_of(one) && is_point(one, i) && x_of(one.x[i]) < x + 0.5; ++i, ++count) {
      last = y_of(one.y[i]);
      least = std::min(least, last);
      most = std::max(most, last);
    }
    put(x, first);
    if (count > 2 && least != first) put(x, least);
    if (count > 2 && most != least) put(x, most);
    if (count > 1) put(x, last);
    // A point alone: a line of no length, which round caps make visible.
    if (count == 1 && (i == points_of(one) || !is_point(one, i))) put(x, first);
  }
  return path;
}

std::string text_at(double x, double y, std::string_view anchor, std::string_view text,
                    std::string_view more = "") {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\"{}{}>{}</text>\n", x, y,
                     anchor, more.empty() ? "" : " ", more, escaped(text));
}

std::string axes(const Frame& frame, const Area& area, const ChartLabels& labels) {
  std::string out = "<g stroke=\"#d8d8d8\" stroke-width=\"1\">\n";
  for (const double tick : frame.y_ticks) {
    const double y = area.bottom - frame.y_share(tick) * (area.bottom - area.top);
    out += fmt::format("<path d=\"M{:.1f} {:.1f}H{:.1f}\"/>\n", area.left, y, area.right);
  }
  for (const double tick : frame.x_ticks) {
    const double x = area.left + frame.x_share(tick) * (area.right - area.left);
    out += fmt::format("<path d=\"M{:.1f} {:.1f}V{:.1f}\"/>\n", x, area.top, area.bottom);
  }
  out += "</g>\n";
  out +=
      fmt::format("<path d=\"M{:.1f} {:.1f}V{:.1f}H{:.1f}\" fill=\"none\" stroke=\"#404040\"/>\n",
                  area.left, area.top, area.bottom, area.right);
  const double y_step = frame.y_ticks.size() > 1 ? frame.y_ticks[1] - frame.y_ticks[0] : 0;
  const double x_step = frame.x_ticks.size() > 1 ? frame.x_ticks[1] - frame.x_ticks[0] : 0;
  out += "<g fill=\"#404040\">\n";
  for (const double tick : frame.y_ticks) {
    const double y = area.bottom - frame.y_share(tick) * (area.bottom - area.top);
    out += text_at(area.left - 6, y + 4, "end", plot_detail::tick_text(tick, y_step));
  }
  for (const double tick : frame.x_ticks) {
    const double x = area.left + frame.x_share(tick) * (area.right - area.left);
    out += text_at(x, area.bottom + 17, "middle", plot_detail::tick_text(tick, x_step));
  }
  if (!labels.x.empty()) {
    out += text_at((area.left + area.right) / 2, area.bottom + 36, "middle", labels.x);
  }
  if (!labels.y.empty()) {
    const double middle = (area.top + area.bottom) / 2;
    out += text_at(16, middle, "middle", labels.y,
                   fmt::format("transform=\"rotate(-90 16 {:.1f})\"", middle));
  }
  return out + "</g>\n";
}

}  // namespace

std::string svg_chart(std::span<const Series> series, const ChartLabels& labels, int width,
                      int height) {
  constexpr int kLeastWidth = 320, kLeastHeight = 200, kMost = 10'000;
  constexpr double kLegendRow = 18;
  width = std::clamp(width, kLeastWidth, kMost);
  height = std::clamp(height, kLeastHeight, kMost);
  const bool legend = series.size() > 1 || (series.size() == 1 && !series[0].name.empty());
  // The legend lies under the chart, and the picture grows by it.
  const double legend_height = legend ? kLegendRow * static_cast<double>(series.size()) + 10 : 0;
  const double whole = height + legend_height;
  const Area area{70, labels.title.empty() ? 16.0 : 42.0, width - 20.0,
                  height - (labels.x.empty() ? 30.0 : 48.0)};
  std::string out = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1:.0f}\""
      " viewBox=\"0 0 {0} {1:.0f}\" font-family=\"sans-serif\" font-size=\"12\">\n"
      "<title>{2}</title>\n<rect width=\"{0}\" height=\"{1:.0f}\" fill=\"#ffffff\"/>\n",
      width, whole, escaped(labels.title.empty() ? labels.y : labels.title));
  if (!labels.title.empty()) {
    out += text_at(width / 2.0, 24, "middle", labels.title, "font-size=\"15\" fill=\"#000000\"");
  }
  const Frame frame = plot_detail::frame_of(series, width / 100, height / 60, true);
  if (frame.empty) {
    out += text_at(width / 2.0, height / 2.0, "middle", "no values to draw");
    return out + "</svg>\n";
  }
  out += axes(frame, area, labels);
  for (std::size_t i = 0; i < series.size(); ++i) {
    const std::string_view dash = kDashes[i % kDashes.size()];
    const std::string style = fmt::format(
        "fill=\"none\" stroke=\"{}\" stroke-width=\"1.8\" stroke-linejoin=\"round\""
        " stroke-linecap=\"round\"{}",
        kColors[i % kColors.size()],
        dash.empty() ? "" : fmt::format(" stroke-dasharray=\"{}\"", dash));
    out += fmt::format("<path d=\"{}\" {}/>\n", path_of(series[i], frame, area), style);
    if (!legend) continue;
    const double y = height + 8 + kLegendRow * static_cast<double>(i);
    out += fmt::format("<path d=\"M{:.1f} {:.1f}h28\" {}/>\n", area.left, y, style);
    out += text_at(area.left + 36, y + 4, "start", series[i].name, "fill=\"#000000\"");
  }
  return out + "</svg>\n";
}

}  // namespace hone::tune

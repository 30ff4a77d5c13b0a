// Charts: what is drawn lies where it belongs, and nothing breaks them.
// SPDX-License-Identifier: Apache-2.0
#include "tune/plot.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string_view>

namespace hone::tune {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines(1);
  for (const char byte : text) {
    if (byte == '\n') {
      lines.emplace_back();
    } else {
      lines.back() += byte;
    }
  }
  lines.pop_back();
  return lines;
}

int columns(std::string_view text) {
  int count = 0;
  for (const char byte : text) count += (static_cast<unsigned char>(byte) & 0xC0) != 0x80 ? 1 : 0;
  return count;
}

std::size_t count(const std::string& text, std::string_view part) {
  std::size_t found = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) {
    ++found;
  }
  return found;
}

Series line(int points, double (*of)(double), std::string name = "") {
  Series series{std::move(name), {}, {}};
  for (int i = 0; i < points; ++i) {
    series.x.push_back(i);
    series.y.push_back(of(i));
  }
  return series;
}

TEST(PlotTicks, AreRoundAndReachBothEnds) {
  EXPECT_EQ(plot_detail::ticks(0, 10, 6), (std::vector<double>{0, 2, 4, 6, 8, 10}));
  EXPECT_EQ(plot_detail::ticks(0.5, 9.7, 3), (std::vector<double>{0, 5, 10}));
  EXPECT_EQ(plot_detail::ticks(-1, 1, 5), (std::vector<double>{-1, -0.5, 0, 0.5, 1}));
  EXPECT_EQ(plot_detail::ticks(3, 3, 5), (std::vector<double>{3}));
  for (const double least : {-5.3, 0.0, 1e-7, 812.0, 1e12}) {
    for (const double span : {1e-6, 0.37, 1.0, 9.99, 12345.0}) {
      const double most = least + span;
      if (most - least < span * 0.5) continue;  // not representable
      const auto found = plot_detail::ticks(least, most, 5);
      EXPECT_LE(found.front(), least + span * 1e-6);
      EXPECT_GE(found.back(), most - span * 1e-6);
      EXPECT_LE(found.size(), 9u);
      EXPECT_GE(found.size(), 2u);
    }
  }
}

TEST(PlotTicks, TextsTellNeighboursApart) {
  EXPECT_EQ(plot_detail::tick_text(0.25, 0.25), "0.25");
  EXPECT_EQ(plot_detail::tick_text(1200, 200), "1200");
  EXPECT_EQ(plot_detail::tick_text(2, 0.5), "2.0");
  EXPECT_EQ(plot_detail::tick_text(-0.0, 0.5), "0.0");
  EXPECT_EQ(plot_detail::tick_text(3e-5, 1e-5), "3e-05");
  EXPECT_EQ(plot_detail::tick_text(0, 0), "0");
}

TEST(TerminalChart, AFallingLineFalls) {
  const Series series[] = {line(50, [](double x) { return 50 - x; })};
  const auto lines = lines_of(terminal_chart(series, 60, 10, false));
  ASSERT_EQ(lines.size(), 12u);  // drawing, axis, numbers
  for (const std::string& text : lines) EXPECT_LE(columns(text), 60) << text;
  // The first dots of each row of the drawing move to the right.
  int before = -1;
  for (std::size_t row = 0; row < 10; ++row) {
    const std::size_t braille = lines[row].find("\xE2\xA0");
    const std::size_t other = lines[row].find("\xE2\xA2");
    const std::size_t at = std::min(braille, other);
    ASSERT_NE(at, std::string::npos) << lines[row];
    const int column = columns(std::string_view(lines[row]).substr(0, at));
    EXPECT_GT(column, before);
    before = column;
  }
  EXPECT_NE(lines.back().find('0'), std::string::npos);
  EXPECT_TRUE(lines[2].starts_with("40┤")) << lines[2];  // 50 in row 0, 1 in row 9
}

TEST(TerminalChart, SeriesAreToldApart) {
  const Series series[] = {line(
                               30, [](double x) { return x; }, "up"),
                           line(
                               30, [](double x) { return 29 - x; }, "down")};
  const std::string plain = terminal_chart(series, 70, 12, false, {"two runs", "step", "loss"});
  EXPECT_EQ(plain.find('\x1b'), std::string::npos);
  EXPECT_NE(plain.find("two runs: loss"), std::string::npos);
  EXPECT_NE(plain.find("A up  29 at 29"), std::string::npos);
  EXPECT_NE(plain.find("B down  0 at 29"), std::string::npos);
  EXPECT_GE(count(plain, "A"), 4u);
  EXPECT_GE(count(plain, "B"), 4u);
  const std::string colored = terminal_chart(series, 70, 12, true);
  EXPECT_NE(colored.find("\x1b[36m"), std::string::npos);
  EXPECT_NE(colored.find("\x1b[33m"), std::string::npos);
}

TEST(TerminalChart, TakesWhateverThereIs) {
  const double infinity = std::numeric_limits<double>::infinity();
  const Series nothing{"nothing", {}, {}};
  const Series gaps{"gaps", {1, 2, 3, 4, 5}, {kNan, 1, kNan, infinity, 3}};
  const Series one{"one", {7}, {0.25}};
  const Series flat{"flat", {1, 2, 3}, {5, 5, 5}};
  const Series zero{"zero", {0, 1}, {0, 0}};
  const Series huge{"huge", {0, 1, 2}, {1e308, -1e308, 1e290}};
  const Series uneven{"uneven", {0, 1, 2}, {1}};
  EXPECT_NE(terminal_chart({}, 60, 10, false).find("no values"), std::string::npos);
  EXPECT_NE(svg_chart({}).find("no values"), std::string::npos);
  for (const Series& series : {nothing, gaps, one, flat, zero, huge, uneven}) {
    for (const int width : {-5, 0, 1, 24, 80, 1000}) {
      for (const int height : {-5, 0, 3, 20, 1000}) {
        const std::string text = terminal_chart(std::span(&series, 1), width, height, false);
        EXPECT_FALSE(text.empty());
        for (const std::string& row : lines_of(text)) {
          EXPECT_LE(columns(row), std::clamp(width, 24, 400)) << series.name << "\n" << text;
        }
      }
    }
    const std::string svg = svg_chart(std::span(&series, 1));
    EXPECT_EQ(svg.find("nan"), std::string::npos) << svg;
    EXPECT_EQ(svg.find("inf"), std::string::npos) << svg;
  }
}

TEST(SvgChart, HasAxesLegendAndAPathASeries) {
  const Series series[] = {line(
                               30, [](double x) { return x; }, "a < b & \"c\""),
                           line(
                               30, [](double x) { return x * x; }, "squares")};
  const std::string svg = svg_chart(series, {"Loss <1>", "step", "loss"});
  EXPECT_TRUE(svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\""));
  EXPECT_TRUE(svg.ends_with("</svg>\n"));
  EXPECT_NE(svg.find("a &lt; b &amp; &quot;c&quot;"), std::string::npos);
  EXPECT_EQ(svg.find("a < b"), std::string::npos);
  EXPECT_NE(svg.find(">step</text>"), std::string::npos);
  EXPECT_NE(svg.find(">Loss &lt;1&gt;</text>"), std::string::npos);
  EXPECT_EQ(count(svg, "stroke=\"#0072b2\""), 2u);  // line and legend
  EXPECT_EQ(count(svg, "stroke=\"#d55e00\""), 2u);
  EXPECT_EQ(count(svg, "<text"), count(svg, "</text>"));
}

TEST(SvgChart, LongRunsMakeSmallFiles) {
  const Series series[] = {line(200'000, [](double x) { return std::sin(x * 7919); })};
  const std::string svg = svg_chart(series);
  EXPECT_LT(svg.size(), 100'000u);
  // The noise still fills the height.
  EXPECT_NE(svg.find("L70.0 "), std::string::npos);
}

TEST(Smoothed, IsTheMeanOfAWindow) {
  const Series series{"a", {0, 1, 2, 3, 4}, {1, 2, kNan, 8, 5}};
  EXPECT_EQ(smoothed(series, 1).y[3], 8);
  EXPECT_EQ(smoothed(series, 0).y[3], 8);
  const Series three = smoothed(series, 3);
  EXPECT_EQ(three.name, "a");
  EXPECT_EQ(three.y[0], 1.5);
  EXPECT_EQ(three.y[1], 1.5);
  EXPECT_TRUE(std::isnan(three.y[2]));
  EXPECT_EQ(three.y[3], 6.5);
  EXPECT_EQ(three.y[4], 6.5);
}

}  // namespace
}  // namespace hone::tune

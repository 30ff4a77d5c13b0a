// SPDX-License-Identifier: Apache-2.0
#include "cli/plan_picture.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>

#include "base/human.h"
#include "cli/output.h"

namespace hone::cli {
namespace {

constexpr double kWidth = 1200;
constexpr double kHeight = 480;
constexpr double kMargin = 60;

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    out += c == '<' ? "&lt;" : c == '>' ? "&gt;" : c == '&' ? "&amp;" : std::string(1, c);
  }
  return out;
}

// A hue for each op, the same in every picture.
int hue_of(const std::string& label) {
  const std::string op = label.substr(label.find(' ') + 1);
  return static_cast<int>(std::hash<std::string>{}(op) % 360);
}

}  // namespace

std::string plan_text(const runtime::Program& program) {
  Table table({"value", "memory", "offset", "bytes", "first step", "last step"}, "llrrrr");
  for (const auto& planned : program.planned) {
    table.row({planned.label, planned.place.space == runtime::Space::kArena ? "arena" : "private",
               fmt::format("{}", planned.place.at), fmt::format("{}", planned.place.bytes),
               fmt::format("{}", planned.life.first), fmt::format("{}", planned.life.last)});
  }
  return table.text() + fmt::format("arena {}, private {} a thread, scratch {} a thread\n",
                                    human_bytes(static_cast<std::int64_t>(program.arena_bytes)),
                                    human_bytes(static_cast<std::int64_t>(program.private_bytes)),
                                    human_bytes(static_cast<std::int64_t>(program.scratch_bytes)));
}

std::string plan_svg(const runtime::Program& program) {
  const double steps = static_cast<double>(std::max<std::size_t>(program.steps.size(), 1));
  const double bytes = static_cast<double>(std::max<std::size_t>(program.arena_bytes, 1));
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" font-family=\"sans-serif\" "
      "font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
      "<text x=\"{}\" y=\"24\" font-size=\"15\">Memory plan of {}: {} steps, arena {}</text>\n",
      kWidth + 2 * kMargin, kHeight + 2 * kMargin, kMargin, escaped(program.name),
      program.steps.size(), human_bytes(static_cast<std::int64_t>(program.arena_bytes)));
  svg += fmt::format(
      "<rect x=\"{0}\" y=\"{0}\" width=\"{1}\" height=\"{2}\" fill=\"none\" stroke=\"#888\"/>\n",
      kMargin, kWidth, kHeight);
  for (const auto& planned : program.planned) {
    if (planned.place.space != runtime::Space::kArena) continue;
    const double x = kMargin + kWidth * planned.life.first / steps;
    const double width =
        std::max(0.5, kWidth * (planned.life.last - planned.life.first + 1) / steps);
    const double height = kHeight * static_cast<double>(planned.place.bytes) / bytes;
    const double y =
        kMargin + kHeight - kHeight * static_cast<double>(planned.place.at) / bytes - height;
    svg += fmt::format(
        "<rect x=\"{:.2f}\" y=\"{:.2f}\" width=\"{:.2f}\" height=\"{:.2f}\" "
        "fill=\"hsl({},60%,65%)\" stroke=\"#333\" stroke-width=\"0.3\"><title>{}: {}, steps {} to "
        "{}</title></rect>\n",
        x, y, width, height, hue_of(planned.label), escaped(planned.label),
        human_bytes(static_cast<std::int64_t>(planned.place.bytes)), planned.life.first,
        planned.life.last);
  }
  svg += fmt::format(
      "<text x=\"{0}\" y=\"{1}\">step 0</text><text x=\"{2}\" y=\"{1}\" text-anchor=\"end\">step "
      "{3}</text>\n<text x=\"{4}\" y=\"{5}\" text-anchor=\"end\">0</text><text x=\"{4}\" y=\"{0}\" "
      "text-anchor=\"end\">{6}</text>\n</svg>\n",
      kMargin, kMargin + kHeight + 18, kMargin + kWidth, program.steps.size(), kMargin - 4,
      kMargin + kHeight, human_bytes(static_cast<std::int64_t>(program.arena_bytes)));
  return svg;
}

}  // namespace hone::cli

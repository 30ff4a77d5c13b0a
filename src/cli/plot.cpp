// hone plot: a metric of one run or several, drawn in the terminal or as an SVG file.
// SPDX-License-Identifier: Apache-2.0
#include "tune/plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "cli/registry.h"
#include "cli/run_views.h"

namespace hone::cli {
namespace {

struct Options {
  std::vector<std::string> runs;
  std::string metric = "loss";
  std::optional<std::string> svg;
  std::int64_t smooth = 1;
  std::int64_t width = 0;
  std::int64_t height = 0;
  std::optional<std::string> store;
};

void declare(Options& options, Arguments& arguments) {
  arguments.positionals("RUN", options.runs,
                        "ids of runs, their beginning or last four digits, last, last~1 [last]");
  arguments.option("-m,--metric", options.metric, "what to draw");
  arguments.option("--svg", options.svg, "write a picture instead; - is standard output", "FILE");
  arguments.option("--smooth", options.smooth, "draw means of this many points",
                   Integers{1, 1'000'000});
  arguments.option("--width", options.width, "columns, or pixels of the picture; 0: what fits",
                   Integers{0, 10'000});
  arguments.option("--height", options.height, "rows, or pixels of the picture; 0: what fits",
                   Integers{0, 10'000});
  declare_runs(options.store, arguments);
}

Json document(const std::vector<tune::Series>& series, const std::vector<std::string>& ids,
              const std::string& metric) {
  Json runs = Json::array();
  for (std::size_t i = 0; i < series.size(); ++i) {
    Json values = Json::array();  // JSON has no NaN: null
    for (const double y : series[i].y) values.push_back(std::isfinite(y) ? Json(y) : Json());
    runs.push_back({{"id", ids[i]}, {"steps", series[i].x}, {"values", values}});
  }
  return Json{{"metric", metric}, {"runs", runs}};
}

Status run(const Options& options, Output& output) {
  auto store = tune::RunStore::open_present(runs_path(options.store));
  if (!store) return store.error();
  std::vector<tune::Series> series;
  std::vector<std::string> ids;
  const std::vector<std::string> last = {"last"};
  for (const std::string& name : options.runs.empty() ? last : options.runs) {
    const auto row = store->find(name);
    if (!row) return row.error();
    auto one = series_of(*store, *row, options.metric);
    if (!one) return one.error();
    ids.push_back(row->id);
    series.push_back(tune::smoothed(*one, static_cast<int>(options.smooth)));
  }
  tune::ChartLabels labels{"", "step", options.metric};
  if (options.smooth > 1) labels.y += fmt::format(", mean of {}", options.smooth);
  if (options.svg) {
    const std::string picture =
        tune::svg_chart(series, labels, options.width == 0 ? 800 : static_cast<int>(options.width),
                        options.height == 0 ? 480 : static_cast<int>(options.height));
    if (*options.svg != "-") {
      HONE_RETURN_IF_ERROR(write_file_atomically(*options.svg, picture));
      output.note(fmt::format("wrote {}", *options.svg));
    } else if (!output.json()) {
      output.print(picture);
    }
  }
  if (output.json()) {
    output.document(document(series, ids, options.metric));
  } else if (!options.svg) {
    const auto [columns, rows] = terminal_size();
    const int legend = static_cast<int>(series.size()) + 5;  // title, axis, prompt
    const int width =
        options.width == 0 ? std::min(columns - 1, 140) : static_cast<int>(options.width);
    const int height =
        options.height == 0 ? std::clamp(rows - legend, 6, 24) : static_cast<int>(options.height);
    output.print(tune::terminal_chart(series, width, height, output.color(), labels));
  }
  return {};
}

}  // namespace

const Verb& plot_verb() {
  static const Verb kVerb = make_verb("plot", "draw a metric of runs",
                                      "hone plot last\nhone plot last last~1 --metric loss "
                                      "--smooth 20\nhone plot a1b2 --svg loss.svg",
                                      declare, run);
  return kVerb;
}

}  // namespace hone::cli

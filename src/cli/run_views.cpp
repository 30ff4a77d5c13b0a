// SPDX-License-Identifier: Apache-2.0
#include "cli/run_views.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <chrono>
#include <ctime>
#include <nlohmann/json.hpp>

#include "base/human.h"

namespace hone::cli {

void declare_runs(std::optional<std::string>& path, Arguments& arguments) {
  arguments.option("--runs", path, "the file of run records [~/.local/share/hone/runs.sqlite]",
                   "FILE");
}

std::string runs_path(const std::optional<std::string>& path) {
  return path ? *path : tune::default_runs_path();
}

std::string time_text(double seconds) {
  if (seconds <= 0) return "-";
  const auto whole = static_cast<std::time_t>(seconds);
  std::tm local{};
  localtime_r(&whole, &local);
  return fmt::format("{:04}-{:02}-{:02} {:02}:{:02}:{:02}", local.tm_year + 1900, local.tm_mon + 1,
                     local.tm_mday, local.tm_hour, local.tm_min, local.tm_sec);
}

std::string status_text(const tune::RunRow& run) {
  return run.status == tune::kRunning && !run.alive ? "killed" : run.status;
}

std::string duration_text(const tune::RunRow& run) {
  if (run.ended > 0) return human_duration(run.ended - run.started);
  if (!run.alive) return "-";
  const double now =
      std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  return human_duration(now - run.started);
}

std::string kind_text(const tune::RunRow& run) {
  return run.info.verb + (run.info.method.empty() ? "" : " ") + run.info.method;
}

namespace {

// The object that a text is; the text itself if it is none.
Json object_of(const std::string& text) {
  Json json = Json::parse(text, nullptr, false);
  return json.is_discarded() ? Json(text) : json;
}

}  // namespace

Json run_document(const tune::RunRow& run) {
  Json attached = Json::object();
  for (const auto& [key, value] : run.attached) attached[key] = value;
  return Json{{"id", run.id},
              {"verb", run.info.verb},
              {"method", run.info.method},
              {"status", status_text(run)},
              {"note", run.note},
              {"started", run.started},
              {"ended", run.ended > 0 ? Json(run.ended) : Json()},
              {"model", run.info.model},
              {"model_hash", run.info.model_hash},
              {"data", run.info.data},
              {"data_hash", run.info.data_hash},
              {"seed", run.info.seed},
              {"arguments", object_of(run.info.arguments_json)},
              {"versions", object_of(run.versions_json)},
              {"host", run.host},
              {"attached", attached}};
}

Result<tune::Series> series_of(tune::RunStore& store, const tune::RunRow& run,
                               const std::string& metric) {
  const auto rows = store.metrics(run.id, metric);
  if (!rows) return rows.error();
  if (rows->empty()) {
    const auto all = store.summaries(run.id);
    if (!all) return all.error();
    std::string names;
    for (const tune::MetricSummary& one : *all) names += (names.empty() ? "" : ", ") + one.name;
    return Error{ErrorCode::kNotFound,
                 "the run has no values of this metric",
                 run.id,
                 fmt::format("'{}'", metric),
                 names.empty() ? "a run with metrics" : names,
                 "pick one with --metric"};
  }
  tune::Series series;
  series.name = fmt::format("{} {}", run.id, kind_text(run));
  for (const tune::MetricRow& row : *rows) {
    series.x.push_back(static_cast<double>(row.step));
    series.y.push_back(row.value);
  }
  return series;
}

std::pair<int, int> terminal_size() {
  winsize size{};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 && size.ws_row > 0) {
    return {size.ws_col, size.ws_row};
  }
  return {80, 24};
}

}  // namespace hone::cli

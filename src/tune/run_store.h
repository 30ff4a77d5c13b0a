// Run records: one row a run and one a metric, in a SQLite file that outlives every run.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"

namespace hone::tune {

// What is known of a run before it starts. Empty where it has no meaning.
struct RunInfo {
  std::string verb;  // "tune"
  std::string model, model_hash;
  std::string data, data_hash;
  std::string method;          // "lora"
  std::string arguments_json;  // an object, as the user and the defaults made it
  std::uint64_t seed = 0;
};

// The states of a run. A run whose process is gone without a word stays kRunning in the file; rows
// say `alive`.
inline constexpr std::string_view kRunning = "running";
inline constexpr std::string_view kFinished = "finished";
inline constexpr std::string_view kInterrupted = "interrupted";
inline constexpr std::string_view kFailed = "failed";

struct RunRow {
  std::string id;  // "2026-11-25-a1b2": the local day it began, four digits of chance
  RunInfo info;
  std::string versions_json;  // of hone, compiler, system, instruction set
  std::string host;
  std::string status;  // one of the above
  std::string note;    // what finish() was told
  double started = 0;  // seconds since 1970
  double ended = 0;    // 0: not yet
  bool alive = false;  // kRunning, and its process still exists on this host
  std::vector<std::pair<std::string, std::string>> attached;  // by key
};

struct MetricRow {
  std::int64_t step = 0;
  double value = 0;  // may be NaN or infinite
};

// A metric of a run in a line.
struct MetricSummary {
  std::string name;
  std::int64_t count = 0;
  MetricRow first, last;
  double least = 0, most = 0;  // of the finite values; NaN without one
};

// What list() looks for; empty is everything.
struct RunFilter {
  std::string verb, status;
  std::int64_t most = 0;  // newest runs; 0: all
};

using Metric = std::pair<std::string_view, double>;

// For one thread. Several processes may use a file at once: each call is a transaction that waits a
// few seconds for the others.
class RunStore {
 public:
  // Makes the file and its folder where they are absent.
  static Result<RunStore> open(const std::string& path);
  // kNotFound where there is no file, instead of making one: for reading.
  static Result<RunStore> open_present(const std::string& path);

  // Adds a run of this process; returns its id.
  Result<std::string> begin(const RunInfo& info);
  // A stopped run goes on in this process, under its old id.
  Status resume(const std::string& run);
  // What is logged again (after resuming) replaces what was there.
  Status log(const std::string& run, std::int64_t step, std::span<const Metric> metrics);
  // `status`: kFinished, kInterrupted or kFailed.
  Status finish(const std::string& run, std::string_view status, std::string_view note = "");
  // A fact that comes up on the way: "output", "checkpoint", a row of the final table.
  Status attach(const std::string& run, std::string_view key, std::string_view value);

  // Newest first.
  Result<std::vector<RunRow>> list(const RunFilter& filter = {});
  // By id, the beginning of one or its last four digits where only one run has them, "last", or
  // "last~2" for the second before the last.
  Result<RunRow> find(std::string_view name);
  // In order of steps.
  Result<std::vector<MetricRow>> metrics(const std::string& run, std::string_view name);
  Result<std::vector<MetricSummary>> summaries(const std::string& run);

  // SHA-256 of a file, remembered by its path, size and time of change; of a folder, of the names
  // and hashes of the files in it.
  Result<std::string> hash_of(const std::string& path);

  const std::string& path() const;

  RunStore(RunStore&&) noexcept;
  RunStore& operator=(RunStore&&) noexcept;
  ~RunStore();

 private:
  struct State;
  explicit RunStore(std::unique_ptr<State> state);
  Result<std::int64_t> number_of(const std::string& run);

  std::unique_ptr<State> state_;
};

// $XDG_DATA_HOME/hone/runs.sqlite or ~/.local/share/hone/runs.sqlite; empty without a home.
std::string default_runs_path();

}  // namespace hone::tune

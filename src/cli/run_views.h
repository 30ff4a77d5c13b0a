// What the verbs around run records share: opening them, and texts of times and runs.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <utility>

#include "cli/arguments.h"
#include "cli/output.h"
#include "tune/plot.h"
#include "tune/run_store.h"

namespace hone::cli {

// --runs FILE.
void declare_runs(std::optional<std::string>& path, Arguments& arguments);
// The file that the option names, or the default.
std::string runs_path(const std::optional<std::string>& path);

// "2026-11-25 19:04:11" of the machine's zone; "-" for 0.
std::string time_text(double seconds);
// "finished", and "killed" for a run whose process is gone without a word.
std::string status_text(const tune::RunRow& run);
// From start to end, or until now for a run that goes on; "-" if nobody knows.
std::string duration_text(const tune::RunRow& run);
// "tune lora"
std::string kind_text(const tune::RunRow& run);
Json run_document(const tune::RunRow& run);

// A metric of a run; kNotFound, naming those that it has, without values.
Result<tune::Series> series_of(tune::RunStore& store, const tune::RunRow& run,
                               const std::string& metric);

// Columns and rows of the terminal on standard output; 80 x 24 where there is none.
std::pair<int, int> terminal_size();

}  // namespace hone::cli

// SPDX-License-Identifier: Apache-2.0
#include "cli/run_checkpoints.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "tune/run_store.h"

namespace hone::cli {

Result<std::string> checkpoints_folder(const std::string& run, const std::string& store_path) {
  if (std::filesystem::is_directory(run)) return run;
  auto store =
      tune::RunStore::open_present(store_path.empty() ? tune::default_runs_path() : store_path);
  if (!store) return store.error();
  const auto row = store->find(run);
  if (!row) return row.error();
  for (const auto& [key, value] : row->attached) {
    if (key == "checkpoints") return value;
  }
  return Error{ErrorCode::kNotFound, "this run left no checkpoints", "", row->id, "", ""};
}

Result<std::unique_ptr<tune::Job>> job_of(const tune::Checkpoint& checkpoint) {
  const auto metadata = nlohmann::json::parse(checkpoint.metadata_json(), nullptr, false);
  if (!metadata.is_object() || !metadata.contains("options")) {
    return Error{ErrorCode::kCorrupt, "the checkpoint is not one of `hone tune`",
                 checkpoint.path(),   "",
                 "its options",       ""};
  }
  auto options = tune::JobOptions::of_json(metadata["options"].dump());
  if (!options) return options.error().in(checkpoint.path());
  options->scratch = std::filesystem::path(checkpoint.path()).parent_path().string();
  auto job = tune::Job::open(*options);
  if (!job) return job;
  const std::string data_hash = metadata.value("data_sha256", "");
  if ((*job)->data().report.sha256 != data_hash) {
    return Error{ErrorCode::kInvalidArgument,
                 "the data is not what the run was trained on",
                 options->data,
                 (*job)->data().report.sha256,
                 data_hash,
                 ""};
  }
  return job;
}

}  // namespace hone::cli

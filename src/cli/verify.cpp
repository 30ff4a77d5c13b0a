// hone verify: runs some steps of a tuning run again and compares the bits.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/progress.h"
#include "cli/registry.h"
#include "cli/run_checkpoints.h"
#include "tune/checkpoint.h"

namespace hone::cli {
namespace {

struct Options {
  std::string run;
  std::string runs;
  bool from_start = false;
};

void declare(Options& options, Arguments& arguments) {
  arguments.positional("RUN", options.run, "a run (see `hone runs`), or a folder of checkpoints");
  arguments.option("--runs", options.runs, "file of run records", "FILE");
  arguments.flag("--from-start", options.from_start,
                 "begin at the first step instead of the last checkpoint but one");
}

// Whole checkpoints of a folder, by step.
Result<std::vector<tune::Checkpoint>> checkpoints_of(const std::string& folder) {
  std::vector<tune::Checkpoint> found;
  std::error_code failed;
  for (const auto& entry : std::filesystem::directory_iterator(folder, failed)) {
    if (entry.path().extension() != ".hone") continue;
    auto checkpoint = tune::Checkpoint::open(entry.path().string());
    if (checkpoint) found.push_back(*std::move(checkpoint));
  }
  if (found.empty()) {
    return Error{
        ErrorCode::kNotFound, "there is no whole checkpoint", folder, "", "checkpoint-N.hone", ""};
  }
  std::ranges::sort(found, {}, &tune::Checkpoint::step);
  return found;
}

std::string where_it_differs(const tune::Trainer& trainer, const tune::Checkpoint& last) {
  for (const tune::CheckpointTensor& tensor : trainer.state()) {
    const auto expected = last.find(tensor.name, tensor.bytes.size());
    if (!expected) return tensor.name;
    if (!std::ranges::equal(tensor.bytes, *expected)) return tensor.name;
  }
  return "";
}

Status run(const Options& options, Output& output) {
  const auto folder = checkpoints_folder(options.run, options.runs);
  if (!folder) return folder.error();
  const auto checkpoints = checkpoints_of(*folder);
  if (!checkpoints) return checkpoints.error();
  const tune::Checkpoint& last = checkpoints->back();
  const auto metadata = nlohmann::json::parse(last.metadata_json(), nullptr, false);
  auto job = job_of(last);
  if (!job) return job.error();
  tune::Trainer& trainer = (*job)->trainer();
  const bool resumes = checkpoints->size() > 1 && !options.from_start;
  if (resumes) HONE_RETURN_IF_ERROR(trainer.restore((*checkpoints)[checkpoints->size() - 2]));
  const std::int64_t from = trainer.steps_done();
  {
    Progress progress("verifying", last.step(), from, ProgressUnit::kCount);
    while (trainer.steps_done() < last.step()) {
      auto report = trainer.step();
      if (!report) return report.error();
      progress.update(report->step);
    }
  }
  const std::string difference = where_it_differs(trainer, last);
  if (output.json()) {
    output.document(Json{{"from_step", from},
                         {"to_step", last.step()},
                         {"hash", trainer.hash()},
                         {"expected_hash", metadata.value("hash", "")},
                         {"equal", difference.empty()}});
  }
  if (!difference.empty()) {
    return Error{ErrorCode::kCorrupt,
                 "the same steps gave other bits",
                 last.path(),
                 fmt::format("'{}' differs after step {}", difference, last.step()),
                 "the run's own bits",
                 "was it made with another version, machine type or number of threads?"};
  }
  if (!output.json()) {
    output.print(fmt::format("steps {} to {} give the same bits: {}\n", from + 1, last.step(),
                             trainer.hash()));
  }
  return {};
}

}  // namespace

const Verb& verify_verb() {
  static const Verb kVerb = make_verb(
      "verify", "run steps of a tuning run again and compare the bits",
      "hone verify last\nhone verify adapter.gguf.checkpoints --from-start", declare, run);
  return kVerb;
}

}  // namespace hone::cli

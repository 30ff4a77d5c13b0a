// From a run's name to its checkpoints, and to the job that it was: what verify and replay share.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "base/status.h"
#include "tune/checkpoint.h"
#include "tune/job.h"

namespace hone::cli {

// A folder of checkpoints itself, or the one that a run was told of. `store`: file of run records;
// empty: the default one.
Result<std::string> checkpoints_folder(const std::string& run, const std::string& store);

// The job of a checkpoint's options, at its start. Errors: kCorrupt for a checkpoint of something
// else, kInvalidArgument where the data has changed since.
Result<std::unique_ptr<tune::Job>> job_of(const tune::Checkpoint& checkpoint);

}  // namespace hone::cli

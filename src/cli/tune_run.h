// A tuning run from its options to its report: what `hone tune` and `hone pretrain` share.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "cli/output.h"
#include "tune/job.h"

namespace hone::cli {

struct TuneOptions {
  tune::JobOptions job;
  std::string memory;
  std::string output;
  std::string questions;
  std::string checkpoints;
  std::int64_t checkpoint_every = 100;
  std::int64_t seed = 1;
  std::string resume;
  std::string runs;
  bool dry = false;
  std::string verb = "tune";  // in the run records
};

// Plans, tells, trains with checkpoints and run records, saves, and shows what came of it.
Status run_tuning(const TuneOptions& options, Output& output);

}  // namespace hone::cli

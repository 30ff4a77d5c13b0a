// hone bench tune: seconds of a training step, its memory, and its share of the machine's limit.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "cli/arguments.h"
#include "cli/model_options.h"
#include "cli/output.h"

namespace hone::cli {

struct TuneBench {
  std::string method = "lora";  // of MethodOptions, zo, or forward
  std::string optimizer = "adamw";
  std::int64_t batch = 4;
  std::int64_t length = 256;
  std::int64_t steps = 4;
  std::int64_t rank = 16;
  std::string perturb = "low-rank";  // of zo, as of tune
  std::string probe = "tangent";
  std::string layers = "all";
  std::int64_t directions = 1;
  std::string memory;
  std::string rounding = "none";
  std::string offload;  // folder of the optimizer's state; empty: in memory
  bool update_inside = false;
};

void declare_tune_bench(TuneBench& options, Arguments& arguments);
// On sequences of random tokens, all of them targets. The first step, which compiles, is not
// counted.
Status bench_tune(const TuneBench& options, const ModelOptions& model, bool profile,
                  Output& output);

}  // namespace hone::cli

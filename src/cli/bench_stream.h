// hone bench stream: a forward step whose weights come from the file, against reading the file.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "cli/model_options.h"
#include "cli/output.h"

namespace hone::cli {

// Losses of `batch` sequences of `length` random tokens, `steps` times, each after a plain read of
// the whole file; the file's pages are dropped from the cache before either. The first step, which
// compiles, is not counted.
Status bench_stream(const ModelOptions& model, std::int64_t batch, std::int64_t length,
                    std::int64_t steps, Output& output);

}  // namespace hone::cli

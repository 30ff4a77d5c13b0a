// What merging is measured on: a text, or the answers of training data.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cli/model_options.h"
#include "tune/data/example.h"

namespace hone::cli {

struct MergeSample {
  std::string name;  // for people
  std::string text;
  std::vector<tune::Example> examples;  // instead of the text, where there are any
};

// A file of text, or of training data in any form that `hone data` reads; neither: the program's
// own text. Of data the first examples, some thousand tokens; each at most the session's context.
Result<MergeSample> merge_sample(const LoadedModel& model, const std::string& text,
                                 const std::string& data);

struct MeanLoss {
  double nats = 0;  // a token
  std::int64_t tokens = 0;
};

// kInvalidArgument when Ctrl-C came.
Result<MeanLoss> mean_loss(const LoadedModel& model, const MergeSample& sample);

}  // namespace hone::cli

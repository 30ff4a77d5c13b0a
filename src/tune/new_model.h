// A model that knows nothing yet: a GGUF file of a llama with random weights, to be pretrained.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"

namespace hone::tune {

struct NewModel {
  std::int64_t hidden = 256;
  std::int64_t layers = 6;
  std::int64_t heads = 8;
  std::int64_t kv_heads = 4;
  std::int64_t feed_forward = 768;
  std::int64_t context = 512;
  std::uint64_t seed = 1;
  // A model whose tokenizer is taken over, or "bytes": 256 tokens of a byte each, and an end.
  std::string vocabulary = "bytes";
};

// "tiny" (about 1 million numbers), "small" (about 5), "110m". kNotFound for others.
Result<NewModel> new_model_of_size(std::string_view size);

// Matrices normal with standard deviation 0.02, those that write into the residual stream smaller
// by sqrt(2 * layers) (Radford et al. 2019, GPT-2, section 2.3); norms ones; output tied to the
// embedding. Errors: sizes that make no model, those of the vocabulary's model, kIo.
Status write_new_model(const std::string& path, const NewModel& model);

}  // namespace hone::tune

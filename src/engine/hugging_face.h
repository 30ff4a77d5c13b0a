// config.json of a Hugging Face folder as GGUF metadata, and back.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "formats/gguf_metadata.h"
#include "models/family.h"

namespace hone::engine {

struct HuggingFaceConfig {
  const models::Family* family = nullptr;
  formats::Metadata metadata;
  // Divisors of rope's frequencies (GGUF's tensor "rope_freqs.weight"), head_size / 2 of them;
  // empty where the model has none. Made as transformers makes them for "llama3" scaling.
  std::vector<float> rope_factors;
  bool tied = false;                              // logits through the embedding
  std::vector<std::int64_t> end_of_generation{};  // eos_token_id, one or several
};

// `where` names the file in errors. kCorrupt for text that is no JSON object or a value of the
// wrong type, kNotFound for a missing key, kUnsupported naming the key whose value hone does not
// know.
Result<HuggingFaceConfig> read_hugging_face_config(std::string_view config_json,
                                                   const std::string& where);

}  // namespace hone::engine

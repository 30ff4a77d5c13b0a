// PEFT's folders of an adapter: adapter_config.json and adapter_model.safetensors.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "formats/adapter.h"

namespace hone::formats {

// Weights go by the names of Hugging Face's model ("model.layers.0.self_attn.q_proj.weight"), rows
// in its order. Where PEFT's scale is not alpha / rank with one alpha (rank-stabilized scaling,
// alpha_pattern), B carries the difference. `architecture` stays empty. Prompt tuning
// (peft_type PROMPT_TUNING) becomes kPrompt. Errors: kUnsupported for what is no low-rank adapter
// of linear layers alone (other methods, biases, embeddings, whole modules, DoRA), kCorrupt for
// texts and tensors that break their form, kNotFound without files.
Result<Adapter> read_adapter_peft(const std::string& folder);

struct PeftWriteOptions {
  // Modules that hold their weights (inputs, outputs) (GPT-2).
  bool fan_in_fan_out = false;
  // Of the model, which PEFT wants beside a soft prompt.
  std::int64_t layers = 0;
  std::int64_t heads = 0;
};

// Into a folder that is new or empty; nothing is left after an error. Not of kPooled.
Status write_adapter_peft(const std::string& folder, const Adapter& adapter,
                          const PeftWriteOptions& options = {});

}  // namespace hone::formats

// Qwen 2: llama with biases on queries, keys and values, rope by halves (Yang et al. 2024).
// SPDX-License-Identifier: Apache-2.0
#include "models/qwen.h"

namespace hone::models {

const Family& qwen2_family() {
  static const Family kFamily{"qwen2",     "Qwen 2",           "qwen2",
                              "qwen2",     "Qwen2ForCausalLM", qwen_tensors(),
                              qwen_keys(), configure_qwen,     build_qwen};
  return kFamily;
}

}  // namespace hone::models

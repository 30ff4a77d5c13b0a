// Qwen 3: llama with a norm on the heads of queries and keys, rope by halves (Yang et al. 2025).
// SPDX-License-Identifier: Apache-2.0
#include "models/qwen.h"

namespace hone::models {

const Family& qwen3_family() {
  static const Family kFamily{"qwen3",     "Qwen 3",           "qwen3",
                              "qwen3",     "Qwen3ForCausalLM", qwen_tensors(),
                              qwen_keys(), configure_qwen,     build_qwen};
  return kFamily;
}

}  // namespace hone::models

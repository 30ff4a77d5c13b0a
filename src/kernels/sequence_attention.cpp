// SPDX-License-Identifier: Apache-2.0
#include "kernels/sequence_attention.h"

#include "kernels/sequence_scratch.h"

namespace hone::kernels {

std::size_t sequence_attention_scratch_bytes(int head_size) {
  return divide_sequence_scratch(nullptr, static_cast<std::size_t>(head_size)).bytes;
}

}  // namespace hone::kernels

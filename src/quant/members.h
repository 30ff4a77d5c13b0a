// Declares decode_<stem> and encode_<stem> of every line in list.inc, for the files that define
// them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>

namespace hone::quant {

#define HONE_CODEC(enumerator, stem)                                               \
  void decode_##stem(std::span<const std::byte> blocks, std::span<float> out);     \
  void encode_##stem(std::span<const float> in, std::span<const float> importance, \
                     std::span<std::byte> blocks);
#include "quant/list.inc"
#undef HONE_CODEC

}  // namespace hone::quant

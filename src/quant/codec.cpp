// The registry of codecs and the checked forms of decode and encode.
// SPDX-License-Identifier: Apache-2.0
#include "quant/codec.h"

#include <array>
#include <string>

#include "quant/members.h"

namespace hone::quant {
namespace {

constexpr std::array kCodecs = {
#define HONE_CODEC(enumerator, stem) Codec{DType::enumerator, decode_##stem, encode_##stem},
#include "quant/list.inc"
#undef HONE_CODEC
};

Error no_codec(DType dtype) {
  std::string known;
  for (const Codec& codec : kCodecs) {
    known += ' ';
    known += dtype_name(codec.dtype);
  }
  return Error{ErrorCode::kUnsupported,
               "this element type cannot be read or written as weights",
               "",
               std::string(dtype_name(dtype)),
               "one of" + known,
               ""};
}

}  // namespace

std::span<const Codec> codecs() { return kCodecs; }

const Codec* find_codec(DType dtype) {
  for (const Codec& codec : kCodecs) {
    if (codec.dtype == dtype) return &codec;
  }
  return nullptr;
}

Result<std::vector<float>> dequantize(DType dtype, std::span<const std::byte> blocks) {
  const Codec* codec = find_codec(dtype);
  if (codec == nullptr) return no_codec(dtype);
  const DTypeInfo& info = dtype_info(dtype);
  const auto bytes = static_cast<std::size_t>(info.bytes);
  if (blocks.size() % bytes != 0) {
    return Error{ErrorCode::kInvalidArgument,
                 "the bytes are not whole blocks",
                 "",
                 std::to_string(blocks.size()) + " bytes",
                 "a multiple of " + std::to_string(bytes) + ", the size of a block of " +
                     std::string(info.name),
                 ""};
  }
  std::vector<float> out(blocks.size() / bytes * static_cast<std::size_t>(info.block));
  codec->decode(blocks, out);
  return out;
}

Result<std::vector<std::byte>> quantize(DType dtype, std::span<const float> weights,
                                        std::span<const float> importance) {
  const Codec* codec = find_codec(dtype);
  if (codec == nullptr) return no_codec(dtype);
  const DTypeInfo& info = dtype_info(dtype);
  const auto block = static_cast<std::size_t>(info.block);
  if (weights.size() % block != 0) {
    return Error{ErrorCode::kInvalidArgument,
                 "the weights do not fill whole blocks",
                 "",
                 std::to_string(weights.size()) + " weights",
                 "a multiple of " + std::to_string(block) + " for " + std::string(info.name),
                 "keep this tensor in f16, or choose a format with a smaller block"};
  }
  if (!importance.empty() && importance.size() != weights.size()) {
    return Error{ErrorCode::kInvalidArgument,
                 "importance and weights differ in length",
                 "",
                 std::to_string(importance.size()) + " factors",
                 std::to_string(weights.size()) + ", or none",
                 ""};
  }
  std::vector<std::byte> blocks(weights.size() / block * static_cast<std::size_t>(info.bytes));
  codec->encode(weights, importance, blocks);
  return blocks;
}

}  // namespace hone::quant

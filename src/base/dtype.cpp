// SPDX-License-Identifier: Apache-2.0
#include "base/dtype.h"

#include <array>
#include <cctype>

namespace hone {
namespace {

constexpr std::array kInfos = {
#define HONE_DTYPE(enumerator, text, weights, bytes, gguf) \
  DTypeInfo{DType::enumerator, text, weights, bytes, gguf},
#include "base/dtype.inc"
#undef HONE_DTYPE
};

}  // namespace

const DTypeInfo& dtype_info(DType dtype) { return kInfos[static_cast<std::size_t>(dtype)]; }

std::span<const DTypeInfo> all_dtypes() { return kInfos; }

std::optional<DType> dtype_from_name(std::string_view name) {
  for (const DTypeInfo& info : kInfos) {
    if (info.name.size() != name.size()) continue;
    bool same = true;
    for (std::size_t i = 0; i < name.size(); ++i) {
      same = same && std::tolower(static_cast<unsigned char>(name[i])) == info.name[i];
    }
    if (same) return info.dtype;
  }
  return std::nullopt;
}

std::optional<DType> dtype_from_gguf(std::uint32_t gguf_type) {
  for (const DTypeInfo& info : kInfos) {
    if (info.gguf_type >= 0 && static_cast<std::uint32_t>(info.gguf_type) == gguf_type) {
      return info.dtype;
    }
  }
  return std::nullopt;
}

}  // namespace hone

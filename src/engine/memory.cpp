// SPDX-License-Identifier: Apache-2.0
#include "engine/memory.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "ir/type.h"
#include "kernels/attention.h"
#include "kernels/packed.h"

namespace hone::engine {
namespace {

std::int64_t cache_bytes(const models::Config& config, kernels::CacheKind kind) {
  const kernels::CacheLayout layout{kind, static_cast<int>(config.kv_heads),
                                    static_cast<int>(config.head_size)};
  const std::size_t page = layout.page_bytes_key() + layout.page_bytes_value();
  return static_cast<std::int64_t>(page) / kernels::kPageTokens * config.layers;
}

std::int64_t weight_bytes(const formats::TensorRecord& tensor) {
  const auto plain = static_cast<std::int64_t>(tensor.data.size());
  if (tensor.shape.size() != 2) return tensor.elements() * 4;  // vectors are kept as f32
  const auto packed = kernels::packed_layout(tensor.dtype, tensor.shape[0], tensor.shape[1]);
  return packed ? packed->total_bytes : plain;
}

}  // namespace

Result<MemoryNeed> memory_of(const ModelSource& source, std::int64_t batch) {
  const auto architecture = source.metadata().text("general.architecture");
  if (!architecture) return architecture.error();
  const models::Family* family = models::find_family(*architecture);
  if (family == nullptr) {
    return Error{ErrorCode::kUnsupported,
                 "hone has no family for this model",
                 source.path(),
                 fmt::format("architecture '{}'", *architecture),
                 "",
                 ""};
  }
  std::map<std::string, ir::Type, std::less<>> types;
  MemoryNeed need;
  for (const formats::TensorRecord& tensor : source.tensors()) {
    types.emplace(tensor.name,
                  ir::tensor_type({tensor.shape.begin(), tensor.shape.end()}, tensor.dtype));
    need.weights += weight_bytes(tensor);
  }
  const models::FindWeight find = [&types](std::string_view name) -> const ir::Type* {
    const auto found = types.find(name);
    return found == types.end() ? nullptr : &found->second;
  };
  auto config = family->configure(source.metadata(), find);
  if (!config) return config.error().in(source.path());
  need.config = *std::move(config);
  need.cache_per_token = {cache_bytes(need.config, kernels::CacheKind::kF16),
                          cache_bytes(need.config, kernels::CacheKind::kI8),
                          cache_bytes(need.config, kernels::CacheKind::kF32)};
  // Alive together at the widest place: the residual, its norm, and either queries, keys, values
  // and the attended, or gate and up.
  const models::Config& c = need.config;
  const std::int64_t attention = 2 * (c.heads + c.kv_heads) * c.head_size;
  const std::int64_t widest = 2 * c.hidden + std::max(attention, 2 * c.feed_forward);
  need.workspace = 4 * (batch * widest + c.vocabulary);
  return need;
}

}  // namespace hone::engine

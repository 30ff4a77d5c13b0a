// What Qwen 2 and Qwen 3 share: names, keys and the graph, which differs in the norms of the heads.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "models/family.h"

namespace hone::models {

std::span<const TensorName> qwen_tensors();
std::span<const ConfigKey> qwen_keys();
Result<Config> configure_qwen(const formats::Metadata& metadata, const FindWeight& weights);
Result<ir::Graph> build_qwen(const Config& config, const Batch& batch, const FindWeight& weights);

}  // namespace hone::models

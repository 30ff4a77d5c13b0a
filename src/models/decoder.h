// The graph that Llama and Qwen share: norm, attention, norm, gated MLP, each added to the stream.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "models/family.h"

namespace hone::models {

// `interleaved`: rotary embedding turns neighbours, not halves. Biases and norms of heads are used
// where the model has them.
Result<ir::Graph> build_decoder(const Config& config, const Batch& batch, const FindWeight& weights,
                                bool interleaved);

}  // namespace hone::models

// The leading directions of the layers' own inputs, as the fixed factor of low-rank perturbations.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>

#include "base/status.h"
#include "engine/session.h"
#include "feedback/gradient.h"
#include "tune/trained.h"

namespace hone::tune {

// Sets every A (r, K) of a LoRA adapter to the r leading right singular vectors of what its weight
// is multiplied with where the batches' tokens predict, by subspace iteration: a gradient's rows
// lie in the span of the inputs, so B alone can reach most of it (AGZO, 2026; ZO-Act, 2026).
// kInvalidArgument for another method. All inputs of one batch are in memory at once.
Status set_input_factors(engine::Session& session, const Trained& trained,
                         std::span<const feedback::TokenBatch> batches);

}  // namespace hone::tune

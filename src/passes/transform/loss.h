// Cross-entropy in place of logits: the graph's output becomes the losses of the wanted rows.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "base/status.h"
#include "ir/graph.h"

namespace hone::passes {

// The output "logits" (M, V), made by a matmul with the output weight and perhaps a tanh_cap,
// becomes "loss" (M): weights[m] * (log sum exp(logits[m]) - logits[m][targets[m]]), by the op
// output_loss, which never holds whole logits. New inputs: "targets" (M) i32 and "weights" (M) f32;
// a row of weight 0 costs nothing. Error: kUnsupported where the logits come from something else.
enum class LossForm : std::uint8_t {
  kGradient,        // with the gradient to what the output matrix is multiplied with
  kWeightGradient,  // and that to the output matrix, which is trained
  kLosses,          // alone
};
Result<ir::Graph> add_loss(const ir::Graph& graph, LossForm form = LossForm::kGradient);

}  // namespace hone::passes

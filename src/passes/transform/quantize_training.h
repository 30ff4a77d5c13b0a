// Training in int8: the three products of every linear layer on codes, rotated so that what stands
// out does not take the codes of all others (HALO: Ashkboos et al. 2025, arXiv 2501.02625).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "base/status.h"
#include "ir/graph.h"

namespace hone::passes {

// One scale for an operand, or one for each of its rows as the product sees them, so that scales
// leave the sum: rows of the left operand and columns of the right one.
enum class ScaleOf : std::uint8_t { kTensor, kRow };

// Where Hadamard matrices H (columns) and T (blocks of tokens) stand, Q to codes:
//   level   y              dx                     dW
//   0       Q(x) Q(W)^T    Q(dy) Q(W)             Q(dy)^T Q(x)
//   1       Q(xH) Q(WH)^T  as 0                   as 0
//   2       as 1           T^T [Q(T dy) Q(W)]     as 0
// With `rotated_backward` (the paper's variants that keep codes of xH and WH for the backward part
// instead of x and W) from level 1 on dx is [... Q(WH)] H^T and dW is [Q(dy)^T Q(xH)] H^T.
struct HaloOptions {
  int level = 2;
  ScaleOf scales = ScaleOf::kTensor;
  std::int64_t bits = 8;  // 2 to 8; 0: no codes, the rotations alone, which change no value
  bool rotated_backward = false;
  std::int64_t token_block = 64;  // a power of two
  std::int64_t least = 32;        // rows and columns of the weights that take part
};

// Run it behind add_gradients, where all three products stand in the graph. Weights in f32 take
// part in all three. Of a weight in blocks, which is not trained, the forward product is in int8
// already (the pass `integer`: a scale for each 32 activations, so nothing is rotated), and dx
// becomes T^T [Q(T dy) Q(W)] with a scale for each column of W, its codes made in passing. The
// output matrix inside of output_loss stays. Error: kInvalidArgument for options out of range.
Result<ir::Graph> quantize_training(const ir::Graph& graph, const HaloOptions& options);

}  // namespace hone::passes

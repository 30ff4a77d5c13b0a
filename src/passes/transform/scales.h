// Quantization scales that change while the weights stay: a factor beside every scale of the file.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "ir/graph.h"

namespace hone::passes {

// What of w = scale * code + minimum the factor is of.
enum class ScaleView : std::uint8_t {
  // Both: (1 + F) w. Of types without a minimum the only one.
  kTied,
  // (1 + F) scale * code + minimum: in types with minima mostly a shift, for the mean of the codes
  // is not 0.
  kScale,
  // scale * code + (1 + F) minimum.
  kMinimum,
};

struct ScaleOptions {
  std::vector<std::string> weights;
  ScaleView view = ScaleView::kTied;
  // Factors carry the attribute `writable` (see LoraOptions).
  bool writable = false;
};

// Parameters of a weight (R, K), f32: factors F (R, K / block), block the weights that share an f16
// scale in the file (32, or 256 of K formats); of views other than kTied also the minima of its
// blocks, of the same shape.
std::string scales_name(std::string_view weight);    // "blk.0.attn_q.weight.scales"
std::string minimums_name(std::string_view weight);  // "blk.0.attn_q.weight.minimums"

// Puts factors beside the block-quantized weights of the matmuls that read them; comes before the
// passes that fuse or pack. Views other than kTied take blocks of 32 alone. Errors: kNotFound for a
// weight that no matmul reads, kInvalidArgument for one that is not quantized, that has factors
// already, or whose blocks the view does not take.
Result<ir::Graph> add_scales(const ir::Graph& graph, const ScaleOptions& options);

}  // namespace hone::passes

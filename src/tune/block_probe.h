// What rounding does to a small model block by block, and what its activations look like.
// SPDX-License-Identifier: Apache-2.0
//
// "Beyond Outliers" (arXiv 2509.23500): h and hq are the residual stream behind a block of the
// clean and of the rounded network, f and fq that block with clean and with rounded weights and
// inputs:
//   a = [(fq(hq) - fq(h)) + (f(hq) - f(h))] / 2   error that came in and went through
//   b = [(fq(hq) - f(hq)) + (fq(h) - f(h))] / 2   error that the block itself adds
// a + b = hq - h behind the block; R = |a + b|^2 / |h|^2 = A + B + C, gain = A of a block / R of
// the one before it.
#pragma once

#include <vector>

#include "base/status.h"
#include "passes/transform/qat.h"
#include "tune/small_model.h"

namespace hone::tune {

struct BlockErrors {
  double total = 0;       // R
  double propagated = 0;  // A
  double local = 0;       // B
  double together = 0;    // C = 2 <a, b> / |h|^2
};

struct RoundingProbe {
  std::vector<BlockErrors> blocks;  // of one batch of what was held out
  double loss = 0;                  // held out, of the clean model
  double loss_gained = 0;           // by rounding
  // Of the inputs of all linear layers, means over rows: largest |x| over the median |x|, and
  // E[x^4] / E[x^2]^2, 3 for normal numbers.
  double max_to_median = 0;
  double kurtosis = 0;
  double gain() const;  // mean of A of a block over R of the one before it
};

// `batches` for the losses.
Result<RoundingProbe> probe_rounding(SmallModel& model, const ByteText& text,
                                     const passes::QatOptions& rounding, std::int64_t batches);

// One block of the model's graph: the residual stream before it as the new input "stream" (N, C),
// the outputs "stream" behind it and the inputs of its linear layers.
Result<ir::Graph> block_graph(const ir::Graph& whole, std::int64_t layer, std::int64_t layers);

}  // namespace hone::tune

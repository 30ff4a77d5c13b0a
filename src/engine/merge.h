// An adapter folded into the weights of its model.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "base/status.h"
#include "base/threads.h"
#include "engine/model_source.h"
#include "engine/rewrite.h"
#include "formats/adapter.h"

namespace hone::engine {

struct MergeOptions {
  // Of the weights that the adapter changes; nullopt: as each is, but a pooled adapter's Q4_0 and
  // Q5_0 become Q4_1 and Q5_1, which hold them without loss.
  std::optional<DType> type;
  double strength = 1;                           // times the adapter's own scale
  std::function<bool(std::int64_t done)> watch;  // as RewriteOptions
};

struct MergedTensor {
  RewrittenTensor tensor;
  // Only minima were shifted: no code was chosen anew (quant/minimums.h).
  bool by_minimums = false;
};

// Writes the model with W + scale * B A in place of every W that the adapter changes (of DoRA with
// rows of the trained magnitude); all other tensors are copied. Streams as rewrite_gguf does.
// `adapter` fits the model.
Result<std::vector<MergedTensor>> merge_adapter(const ModelSource& model,
                                                const formats::Adapter& adapter,
                                                const std::string& path,
                                                const MergeOptions& options, ThreadPool& pool);

}  // namespace hone::engine

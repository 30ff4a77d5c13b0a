// What the layers below those that move gave for a sequence, kept from step to step: nothing
// changes there, so that a sequence that comes again is not run through them again.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "base/recent.h"
#include "base/status.h"
#include "cost/roofline.h"
#include "engine/session.h"
#include "feedback/token_batch.h"
#include "runtime/execute.h"

namespace hone::feedback {

class KeptLayers {
 public:
  struct Options {
    engine::CompileOptions compile;
    std::function<Result<ir::Graph>(const ir::Graph& graph)> adapt;  // as GradientOptions
    cost::Machine machine;
    std::int64_t layer = 1;  // the first that moves
    std::int64_t bytes = 0;  // of rows that are kept, at most; sequences past it run at every step
  };

  // The session outlives it, and nothing below `layer` changes as long as it lives. Runs take the
  // memory of `workspace`.
  KeptLayers(engine::Session& session, Options options,
             std::shared_ptr<runtime::Workspace> workspace);

  // The part of an adapted graph that begins at the layer, its rows the input kBelowName. Errors:
  // kUnsupported for a graph without such a layer.
  Result<ir::Graph> above(const ir::Graph& graph) const;

  // (tokens, width): of each of the batch's tokens what the layers below give, the same bits as in
  // one run of all layers; zeros past the batch's tokens. Valid until the next call.
  Result<std::span<const float>> rows(const TokenBatch& batch, std::int64_t tokens);

  struct Plan {
    std::int64_t arena_bytes = 0;
    std::int64_t work_bytes = 0;
    cost::Estimate cost;
  };
  // What the layers take for a batch of this shape of which nothing is kept yet.
  Result<Plan> plan(const models::Batch& shape);

  void forget();
  std::int64_t kept_bytes() const { return kept_bytes_; }
  std::int64_t found() const { return found_; }    // sequences that were kept
  std::int64_t missed() const { return missed_; }  // and those that ran

 private:
  struct Bound {
    models::Batch shape;
    std::shared_ptr<const runtime::Program> program;
    std::vector<const runtime::Weight*> weights;
    cost::Estimate cost;
  };
  Result<Bound*> program_for(const models::Batch& shape);
  Status run(const TokenBatch& batch, std::span<const std::size_t> sequences);

  engine::Session& session_;
  Options options_;
  std::shared_ptr<runtime::Workspace> workspace_;
  Recent<Bound, 16> programs_;
  std::map<std::vector<std::int32_t>, std::vector<float>> kept_;  // by tokens and first position
  std::vector<float> rows_;
  std::int64_t width_ = 0;
  std::int64_t kept_bytes_ = 0;
  std::int64_t found_ = 0;
  std::int64_t missed_ = 0;
};

}  // namespace hone::feedback

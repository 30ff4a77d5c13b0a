// SPDX-License-Identifier: Apache-2.0
#include "feedback/kept_layers.h"

#include <algorithm>

#include "engine/adapter.h"
#include "passes/pass.h"
#include "passes/transform/cut.h"

namespace hone::feedback {
namespace {

// What the first operation of the layer reads; below 0: there is no such layer.
ir::ValueId input_of_layer(const ir::Graph& graph, std::int64_t layer) {
  for (const ir::Operation& operation : graph.operations) {
    for (const ir::ValueId operand : operation.operands) {
      const ir::Operation& from = graph.producer(operand);
      if (from.is("parameter") && engine::layer_of(from.attributes.text("name")) >= layer) {
        return operation.operands[0];
      }
    }
  }
  return -1;
}

// The key of a sequence: its tokens, and where it begins.
std::vector<std::int32_t> key_of(const TokenBatch& batch, std::size_t sequence) {
  const auto first = batch.tokens.begin() + batch.offsets[sequence];
  const auto last = batch.tokens.begin() + batch.offsets[sequence + 1];
  std::vector<std::int32_t> key(first, last);
  if (!key.empty())
    key.push_back(batch.positions[static_cast<std::size_t>(batch.offsets[sequence])]);
  return key;
}

}  // namespace

KeptLayers::KeptLayers(engine::Session& session, Options options,
                       std::shared_ptr<runtime::Workspace> workspace)
    : session_(session), options_(std::move(options)), workspace_(std::move(workspace)) {
  options_.compile.lower.threads = session_.pool().size();
  width_ = session_.config().hidden;
}

Result<ir::Graph> KeptLayers::above(const ir::Graph& graph) const {
  auto halves = passes::cut(graph, input_of_layer(graph, options_.layer), kBelowName);
  if (!halves) return halves.error();
  return std::move(halves->above);
}

Result<KeptLayers::Bound*> KeptLayers::program_for(const models::Batch& shape) {
  Bound* known = programs_.find([&](const Bound& each) {
    return each.shape.tokens == shape.tokens && each.shape.sequences == shape.sequences;
  });
  if (known != nullptr) return known;
  auto graph = session_.build_graph(shape);
  if (graph) graph = passes::find_pass("sequences")->run(*graph);
  if (graph && options_.adapt) graph = options_.adapt(*graph);
  if (!graph) return graph.error();
  auto halves = passes::cut(*graph, input_of_layer(*graph, options_.layer), kBelowName);
  if (!halves) return halves.error();
  auto compiled = engine::run_passes(std::move(halves->below), options_.compile);
  if (!compiled) return compiled.error();
  Bound bound;
  bound.shape = shape;
  bound.cost = cost::estimate(*compiled, options_.machine);
  auto program = passes::lower(*compiled, options_.compile.lower);
  if (!program) return program.error();
  bound.program = std::make_shared<const runtime::Program>(*std::move(program));
  auto weights = session_.weights().bind(*bound.program);
  if (!weights) return weights.error();
  bound.weights = *std::move(weights);
  return programs_.add(std::move(bound));
}

Result<KeptLayers::Plan> KeptLayers::plan(const models::Batch& shape) {
  const auto bound = program_for(shape);
  if (!bound) return bound.error();
  const runtime::Program& program = *(*bound)->program;
  Plan plan;
  plan.arena_bytes = static_cast<std::int64_t>(program.arena_bytes);
  plan.work_bytes = static_cast<std::int64_t>(runtime::workspace_bytes(program)) - plan.arena_bytes;
  plan.cost = (*bound)->cost;
  return plan;
}

// Runs some sequences of the batch, puts what they give into its rows and keeps what there is room
// for.
Status KeptLayers::run(const TokenBatch& batch, std::span<const std::size_t> sequences) {
  TokenBatch some;
  for (const std::size_t sequence : sequences) {
    const auto begin = batch.offsets[sequence];
    const auto end = batch.offsets[sequence + 1];
    some.tokens.insert(some.tokens.end(), batch.tokens.begin() + begin, batch.tokens.begin() + end);
    some.positions.insert(some.positions.end(), batch.positions.begin() + begin,
                          batch.positions.begin() + end);
    some.offsets.push_back(static_cast<std::int32_t>(some.tokens.size()));
  }
  some.rows = {0};
  some.targets = {0};
  some.weights = {0.0F};
  const auto shape = shape_of(some);
  if (!shape) return shape.error();
  auto bound = program_for(*shape);
  if (!bound) return bound.error();
  const runtime::Program& program = *(*bound)->program;
  const BatchInputs inputs(some, *shape);
  HONE_RETURN_IF_ERROR(runtime::execute(program, {(*bound)->weights, inputs.bind(program), {}},
                                        session_.pool(), *workspace_));
  const std::span<const float> out = runtime::output(program, *workspace_, 0);
  const auto width = static_cast<std::size_t>(width_);
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    const auto begin = static_cast<std::size_t>(some.offsets[i]);
    const auto size = static_cast<std::size_t>(some.offsets[i + 1]) - begin;
    const auto from = out.subspan(begin * width, size * width);
    const auto to = static_cast<std::size_t>(batch.offsets[sequences[i]]) * width;
    std::ranges::copy(from, rows_.begin() + static_cast<std::ptrdiff_t>(to));
    const auto bytes = static_cast<std::int64_t>(from.size_bytes());
    if (kept_bytes_ + bytes > options_.bytes) continue;
    const bool added =
        kept_.try_emplace(key_of(batch, sequences[i]), from.begin(), from.end()).second;
    if (added) kept_bytes_ += bytes;
  }
  return {};
}

void KeptLayers::forget() {
  kept_.clear();
  kept_bytes_ = 0;
}

Result<std::span<const float>> KeptLayers::rows(const TokenBatch& batch, std::int64_t tokens) {
  const auto width = static_cast<std::size_t>(width_);
  rows_.assign(static_cast<std::size_t>(tokens) * width, 0.0F);
  std::vector<std::size_t> missing;
  for (std::size_t i = 0; i < static_cast<std::size_t>(batch.sequences()); ++i) {
    if (batch.offsets[i] == batch.offsets[i + 1]) continue;
    const auto kept = kept_.find(key_of(batch, i));
    if (kept == kept_.end()) {
      missing.push_back(i);
      continue;
    }
    const auto to = static_cast<std::size_t>(batch.offsets[i]) * width;
    std::ranges::copy(kept->second, rows_.begin() + static_cast<std::ptrdiff_t>(to));
  }
  missed_ += std::ssize(missing);
  found_ += batch.sequences() - std::ssize(missing);
  if (!missing.empty()) HONE_RETURN_IF_ERROR(run(batch, missing));
  return std::span<const float>(rows_);
}

}  // namespace hone::feedback

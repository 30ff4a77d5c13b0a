// Lowering of the fused output matmul and loss: chunks of tokens, whose logits all threads share.
// SPDX-License-Identifier: Apache-2.0
//
// For each chunk, with a barrier between: gather the rows whose weight is not 0; logits, threads
// share the words; loss and gradient in place, threads share the tokens; gradient to hidden,
// threads share its columns; gradient to W, threads share its rows. So every weight is decoded once
// a chunk and product, and no sum is shared between threads.
#include <algorithm>
#include <string_view>

#include "passes/lower/dense_product.h"
#include "passes/lower/lower.h"

namespace hone::passes {
namespace {

using runtime::Frame;
using runtime::Place;
using runtime::StepFunction;
using runtime::Worker;

// A chunk's logits in f32: about the last-level cache. Fewer tokens than kLeastTokens pay more for
// decoding weights than for multiplying (decoding costs as much as about 16 tokens); more than
// kMostTokens gain nothing.
constexpr std::size_t kLogitBytes = std::size_t{32} << 20;
constexpr std::size_t kLeastTokens = 96;
constexpr std::size_t kMostTokens = 384;
constexpr std::size_t kTokenGranule = 12;  // rows of a tile on every instruction set

std::size_t rounded(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

// Where a chunk's values are in the scratch memory that all threads share, in bytes.
struct ChunkPlaces {
  std::size_t floats = 0;  // (T, C) f32: hidden
  std::size_t codes = 0;   // (T, C rounded up) int8, then scales, sums
  std::size_t scales = 0;
  std::size_t sums = 0;
  std::size_t logits = 0;    // (T, stride) f32
  std::size_t d_hidden = 0;  // (T, C) f32
  std::size_t end = 0;
};

struct OutputLoss {
  const kernels::KernelTable* kernels = nullptr;
  GemmKernel dense = nullptr;
  bool coded = false;    // hidden comes as int8 rows
  bool integer = false;  // and is multiplied as such
  Int8Span codes;        // hidden, where `coded`
  RowSpan hidden;        // its shape; its place where not `coded`
  MatrixSpan weight;
  kernels::PackedLayout layout;
  Place targets, token_weights, losses;
  RowSpan d_hidden;
  RowSpan d_weight;
  bool losses_only = false;
  bool weight_gradient = false;
  float cap = 0;

  std::size_t chunk = 0;         // T
  std::size_t stride = 0;        // floats between rows of logits
  std::size_t list_bytes = 0;    // of one thread: which tokens count
  std::size_t panel_bytes = 0;   // of one thread: a panel packed on the way
  std::size_t thread_bytes = 0;  // of one thread, all in all
  ChunkPlaces places;

  std::size_t columns() const { return hidden.columns; }
  std::size_t words() const { return static_cast<std::size_t>(weight.matrix.rows); }
  std::size_t padded() const { return (columns() + 31) / 32 * 32; }

  void plan(Lowering& lowering);
  void operator()(const Frame& frame, Worker worker) const;

  // One run, on one thread.
  struct Run {
    const OutputLoss& op;
    const Frame& frame;
    Worker worker;
    std::byte* own;                  // this thread's memory: panels of products, the list
    std::byte* shared;               // places are relative to it
    std::span<std::int32_t> tokens;  // those of the chunk
    bool begins = false;             // the first chunk

    float* floats(std::size_t at) const { return reinterpret_cast<float*>(shared + at); }
    std::span<std::byte> gemm_scratch() const { return {own, kernels::kGemmScratchBytes}; }
    std::span<std::int32_t> find_tokens();
    void clear_masked() const;
    void gather() const;
    void multiply() const;
    void multiply_codes(kernels::MatmulTask& task) const;
    void loss() const;
    void to_hidden() const;
    void to_weight() const;
  };
};

// Every thread makes the same list for itself.
std::span<std::int32_t> OutputLoss::Run::find_tokens() {
  auto* list = reinterpret_cast<std::int32_t*>(own + kernels::kGemmScratchBytes);
  const auto weights = frame.read_floats(op.token_weights, worker.thread);
  std::size_t count = 0;
  for (std::size_t m = 0; m < static_cast<std::size_t>(op.hidden.rows); ++m) {
    if (weights[m] != 0.0F) list[count++] = static_cast<std::int32_t>(m);
  }
  return {list, count};
}

// Tokens without weight have loss and gradient 0, whatever memory held.
void OutputLoss::Run::clear_masked() const {
  const auto weights = frame.read_floats(op.token_weights, worker.thread);
  const auto losses = frame.floats(op.losses, worker.thread);
  const Range rows = share_of(op.hidden.rows, worker.thread, worker.threads);
  for (std::int64_t row = rows.begin; row < rows.end; ++row) {
    if (weights[static_cast<std::size_t>(row)] != 0.0F) continue;
    losses[static_cast<std::size_t>(row)] = 0.0F;
    if (!op.losses_only) std::ranges::fill(op.d_hidden.write(frame, worker, row), 0.0F);
  }
}

void OutputLoss::Run::gather() const {
  const Range rows =
      share_of(static_cast<std::int64_t>(tokens.size()), worker.thread, worker.threads);
  const std::size_t padded = op.padded();
  for (auto i = static_cast<std::size_t>(rows.begin); i < static_cast<std::size_t>(rows.end); ++i) {
    float* values = floats(op.places.floats) + i * op.columns();
    if (!op.coded) {
      const auto from = op.hidden.read(frame, worker, tokens[i]);
      std::copy(from.begin(), from.end(), values);
      continue;
    }
    const Int8Span::Row from = op.codes.write(frame, worker, tokens[i]);
    if (op.integer) {
      std::ranges::copy(from.codes,
                        reinterpret_cast<std::int8_t*>(shared + op.places.codes) + i * padded);
      std::ranges::copy(from.scales, floats(op.places.scales) + i * padded / 32);
      std::ranges::copy(from.sums, floats(op.places.sums) + i * padded / 32);
      if (!op.weight_gradient) continue;
    }
    for (std::size_t c = 0; c < op.columns(); ++c) {
      values[c] = from.scales[c / 32] * static_cast<float>(from.codes[c]);
    }
  }
}

void OutputLoss::Run::multiply_codes(kernels::MatmulTask& task) const {
  const auto kernel = op.kernels->int8_matmul;
  const Range panels = share_of(op.layout.panels(), worker.thread, worker.threads, 2);
  if (op.weight.matrix.packed) {
    task.first_panel = panels.begin;
    task.panel_count = panels.end - panels.begin;
    if (task.panel_count > 0) kernel(task);
    return;
  }
  // As in a file: panels are packed one at a time.
  const auto source = task.weights;
  float* const out = task.out;
  const std::span<std::byte> packed{own + kernels::kGemmScratchBytes + op.list_bytes,
                                    op.panel_bytes};
  for (std::int64_t p = panels.begin; p < panels.end; ++p) {
    const std::int64_t first = p * kernels::kPanelRows;
    const std::int64_t rows = std::min(kernels::kPanelRows, op.layout.rows - first);
    task.layout = *kernels::packed_layout(op.layout.dtype, rows, op.layout.columns);
    kernels::pack_panels(task.layout,
                         source.subspan(static_cast<std::size_t>(
                             dtype_bytes(op.layout.dtype, first * op.layout.columns))),
                         0, 1, packed);
    task.weights = packed.first(static_cast<std::size_t>(task.layout.total_bytes));
    task.first_panel = 0;
    task.panel_count = 1;
    task.out = out + first;
    kernel(task);
  }
}

void OutputLoss::Run::multiply() const {
  if (!op.integer) {
    kernels::GemmTask task;
    task.rows = static_cast<std::int64_t>(tokens.size());
    task.columns = op.weight.matrix.rows;
    task.depth = op.weight.matrix.columns;
    task.a = floats(op.places.floats);
    task.a_stride = op.columns();
    task.b = op.weight.read(frame, worker);
    task.b_transposed = true;
    task.c = floats(op.places.logits);
    task.c_stride = op.stride;
    task.scratch = gemm_scratch();
    return run_gemm(op.dense, task, worker, false);
  }
  kernels::MatmulTask task;
  task.layout = op.layout;
  task.weights = frame.read(op.weight.place, worker.thread);
  task.tokens = static_cast<int>(tokens.size());
  task.int8 = {reinterpret_cast<const std::int8_t*>(shared + op.places.codes),
               floats(op.places.scales), floats(op.places.sums)};
  task.out = floats(op.places.logits);
  task.out_stride = op.stride;
  multiply_codes(task);
}

void OutputLoss::Run::loss() const {
  const auto weights = frame.read_floats(op.token_weights, worker.thread);
  const auto targets = frame.read_integers(op.targets, worker.thread);
  const auto losses = frame.floats(op.losses, worker.thread);
  const Range rows =
      share_of(static_cast<std::int64_t>(tokens.size()), worker.thread, worker.threads);
  for (auto i = static_cast<std::size_t>(rows.begin); i < static_cast<std::size_t>(rows.end); ++i) {
    const auto token = static_cast<std::size_t>(tokens[i]);
    // A target outside of the vocabulary is the caller's to refuse; here nothing is read beyond.
    const std::int32_t target =
        std::clamp<std::int32_t>(targets[token], 0, static_cast<std::int32_t>(op.words()) - 1);
    const std::span<float> logits{floats(op.places.logits) + i * op.stride, op.words()};
    losses[token] = static_cast<float>(op.kernels->cross_entropy_row(
        logits, static_cast<std::size_t>(target), weights[token], op.cap));
  }
}

void OutputLoss::Run::to_hidden() const {
  kernels::GemmTask task;
  task.rows = static_cast<std::int64_t>(tokens.size());
  task.columns = op.weight.matrix.columns;
  task.depth = op.weight.matrix.rows;
  task.a = floats(op.places.logits);
  task.a_stride = op.stride;
  task.b = op.weight.read(frame, worker);
  task.c = floats(op.places.d_hidden);
  task.c_stride = op.columns();
  task.scratch = gemm_scratch();
  run_gemm(op.dense, task, worker, false);
  for (std::int64_t i = task.first_row; i < task.first_row + task.row_count; ++i) {
    const std::int64_t at = i * static_cast<std::int64_t>(op.columns()) + task.first_column;
    std::copy_n(task.c + at, task.column_count,
                op.d_hidden.write(frame, worker, tokens[static_cast<std::size_t>(i)]).data() +
                    task.first_column);
  }
}

void OutputLoss::Run::to_weight() const {
  kernels::GemmTask task;
  task.rows = op.weight.matrix.rows;
  task.columns = op.weight.matrix.columns;
  task.depth = static_cast<std::int64_t>(tokens.size());
  task.a = floats(op.places.logits);
  task.a_stride = op.stride;
  task.a_transposed = true;
  task.b = {DType::kF32,
            task.depth,
            task.columns,
            false,
            {shared + op.places.floats, tokens.size() * op.columns() * sizeof(float)}};
  task.c = frame.floats(op.d_weight.place, worker.thread).data();
  task.c_stride = op.columns();
  task.accumulate = !begins;
  task.scratch = gemm_scratch();
  run_gemm(op.dense, task, worker, false);
}

void OutputLoss::operator()(const Frame& frame, Worker worker) const {
  const auto threads = static_cast<std::size_t>(worker.threads);
  Run run{*this,
          frame,
          worker,
          frame.scratch + static_cast<std::size_t>(worker.thread) * thread_bytes,
          frame.scratch + threads * thread_bytes,
          {}};
  frame.wait(worker);  // another thread may still use its scratch for a step without a barrier
  const std::span<std::int32_t> all = run.find_tokens();
  run.clear_masked();
  if (all.empty() && weight_gradient) {
    const Range rows = share_of(d_weight.rows, worker.thread, worker.threads);
    for (std::int64_t row = rows.begin; row < rows.end; ++row) {
      std::ranges::fill(d_weight.write(frame, worker, row), 0.0F);
    }
  }
  for (std::size_t first = 0; first < all.size(); first += chunk) {
    run.tokens = all.subspan(first, std::min(chunk, all.size() - first));
    run.begins = first == 0;
    run.gather();
    frame.wait(worker);
    run.multiply();
    frame.wait(worker);
    run.loss();
    frame.wait(worker);
    if (losses_only) continue;
    run.to_hidden();
    if (weight_gradient) run.to_weight();
    frame.wait(worker);
  }
}

void OutputLoss::plan(Lowering& lowering) {
  const auto threads = static_cast<std::size_t>(lowering.options().threads);
  stride = rounded(words() * sizeof(float)) / sizeof(float) + 16;  // rows apart in the cache's sets
  const std::size_t fitting = kLogitBytes / (stride * sizeof(float));
  chunk = std::clamp(fitting, kLeastTokens, kMostTokens) / kTokenGranule * kTokenGranule;
  chunk = std::min(chunk, static_cast<std::size_t>(hidden.rows));
  if (integer && !weight.matrix.packed) {
    const auto one =
        kernels::packed_layout(layout.dtype, kernels::kPanelRows, layout.columns)->total_bytes;
    panel_bytes = rounded(static_cast<std::size_t>(one));
  }
  list_bytes = rounded(static_cast<std::size_t>(hidden.rows) * sizeof(std::int32_t));
  thread_bytes = kernels::kGemmScratchBytes + list_bytes + panel_bytes;
  const std::size_t row_bytes = columns() * sizeof(float);
  std::size_t at = 0;
  const auto take = [&](std::size_t bytes) {
    const std::size_t begin = at;
    at += rounded(bytes);
    return begin;
  };
  if (!integer || weight_gradient) places.floats = take(chunk * row_bytes);
  if (integer) {
    places.codes = take(chunk * padded());
    places.scales = take(chunk * padded() / 32 * sizeof(float));
    places.sums = take(chunk * padded() / 32 * sizeof(float));
  }
  places.logits = take(chunk * stride * sizeof(float));
  if (!losses_only) places.d_hidden = take(chunk * row_bytes);
  places.end = at;
  lowering.want_scratch(thread_bytes + (places.end + threads - 1) / threads);
}

}  // namespace

Result<StepFunction> lower_output_loss(Lowering& lowering, const ir::Operation& operation) {
  OutputLoss loss;
  loss.kernels = &lowering.kernels();
  loss.dense = gemm_kernel(lowering, operation);
  loss.coded = lowering.type(operation.operands[0]).layout == ir::Layout::kInt8Rows;
  loss.hidden = row_span(lowering, operation.operands[0]);
  if (loss.coded) loss.codes = int8_span(lowering, operation.operands[0]);
  const ir::Type& type = lowering.type(operation.operands[1]);
  const auto weight = matrix_span(lowering, operation.operands[1]);
  const auto layout = kernels::packed_layout(type.dtype, type.rows(), type.columns());
  if (!weight || !layout) return lower_reference(lowering, operation);
  // Without byte dot products, codes of 8 bits are multiplied faster as floats (Zen 3, AVX2, Q8_0,
  // 256 tokens: 85 GFLOPS against 59 GOPS a core; 2026-11-25).
  const bool fast = std::string_view(loss.kernels->isa) == "avx512";
  loss.integer = loss.coded && kernels::takes_int8(*layout) &&
                 (fast || layout->codes != kernels::CodeKind::kU8);
  loss.weight = *weight;
  loss.layout = *layout;
  loss.targets = lowering.place(operation.operands[2]);
  loss.token_weights = lowering.place(operation.operands[3]);
  loss.losses = lowering.place(operation.results[0]);
  loss.losses_only = operation.results.size() == 1;
  if (!loss.losses_only) loss.d_hidden = row_span(lowering, operation.results[1]);
  loss.weight_gradient = operation.results.size() == 3;
  if (loss.weight_gradient) loss.d_weight = row_span(lowering, operation.results[2]);
  loss.cap = static_cast<float>(operation.attributes.number("cap"));
  loss.plan(lowering);
  return StepFunction(std::move(loss));
}

}  // namespace hone::passes

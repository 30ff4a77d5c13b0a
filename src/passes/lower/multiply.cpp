// Lowering of the matmul family: alone, with a residual, grouped, gated; on packed weights, or on
// weights as they lie in the file.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>

#include "kernels/packed.h"
#include "passes/lower/dense_product.h"
#include "passes/lower/lower.h"
#include "passes/lower/support.h"

namespace hone::passes {
namespace {

using runtime::Frame;
using runtime::Place;
using runtime::StepFunction;
using runtime::Worker;

// One weight matrix of a call.
struct Segment {
  kernels::PackedLayout layout;
  Place weight;
  bool packed = false;
  RowSpan out;
};

// From so many tokens on a dense product of f32 rows is faster than the kernels for packed weights
// (Zen 3, AVX2, Q4_1, 256 tokens: 93 GFLOPS against 69; 2026-11-25).
constexpr std::int64_t kDenseTokens = 16;

struct Multiply {
  std::vector<Segment> segments;
  bool integer = false;
  Int8Span codes;  // input where `integer`
  RowSpan floats;  // input otherwise
  RowSpan residual;
  bool adds = false;
  bool is_private = false;  // every thread computes all of the result for itself
  bool gated = false;       // segments are gate and up, and share the gate's result
  kernels::Activation activation = kernels::Activation::kSilu;
  const kernels::KernelTable* kernels = nullptr;
  GemmKernel dense = nullptr;
  bool must_be_dense = false;    // only dense products round their operands
  std::int64_t panel_bytes = 0;  // of 16 rows, for weights that are not packed

  kernels::MatmulTask task(const Frame& frame, Worker worker, const Segment& segment) const {
    kernels::MatmulTask task;
    task.layout = segment.layout;
    task.weights = frame.read(segment.weight, worker.thread);
    task.tokens = static_cast<int>(segment.out.rows);
    if (integer) {
      task.int8 = codes.read(frame, worker);
    } else {
      task.floats = {frame.read_floats(floats.place, worker.thread).data(), floats.columns};
    }
    task.out = frame.floats(segment.out.place, worker.thread).data();
    task.out_stride = segment.out.columns;
    if (adds) {
      task.residual = frame.read_floats(residual.place, worker.thread).data();
      task.residual_stride = residual.columns;
    }
    return task;
  }

  void call(const kernels::MatmulTask& first, const kernels::MatmulTask* up) const {
    if (up != nullptr) {
      (integer ? kernels->int8_matmul_gated : kernels->f32_matmul_gated)(first, *up, activation);
    } else {
      (integer ? kernels->int8_matmul : kernels->f32_matmul)(first);
    }
  }

  // Packs one panel of a row-major weight into scratch and points the task at it: the same kernel,
  // hence the same bits, without the layout pass.
  void pack_one(const Frame& frame, Worker worker, const Segment& segment, std::int64_t index,
                std::size_t slot, kernels::MatmulTask& task) const {
    const auto rows = std::min<std::int64_t>(kernels::kPanelRows,
                                             segment.layout.rows - index * kernels::kPanelRows);
    const auto layout = kernels::packed_layout(segment.layout.dtype, rows, segment.layout.columns);
    const auto source =
        frame.read(segment.weight, worker.thread)
            .subspan(static_cast<std::size_t>(dtype_bytes(
                segment.layout.dtype, index * kernels::kPanelRows * segment.layout.columns)));
    const auto scratch = frame.scratch_of(worker.thread)
                             .subspan(slot * static_cast<std::size_t>(panel_bytes),
                                      static_cast<std::size_t>(layout->total_bytes));
    kernels::pack_panels(*layout, source, 0, 1, scratch);
    task.layout = *layout;
    task.weights = scratch;
    task.first_panel = 0;
    task.panel_count = 1;
    task.out += index * kernels::kPanelRows;
    if (task.residual != nullptr) task.residual += index * kernels::kPanelRows;
  }

  void run_segment(const Frame& frame, Worker worker, std::size_t index, Range panels) const {
    const Segment& segment = segments[index];
    kernels::MatmulTask first = task(frame, worker, segment);
    kernels::MatmulTask up;
    if (gated) up = task(frame, worker, segments[1]);
    if (segment.packed && (!gated || segments[1].packed)) {
      first.first_panel = panels.begin;
      first.panel_count = panels.end - panels.begin;
      call(first, gated ? &up : nullptr);
      return;
    }
    for (std::int64_t p = panels.begin; p < panels.end; ++p) {
      kernels::MatmulTask one = first;
      kernels::MatmulTask other = up;
      pack_one(frame, worker, segment, p, 0, one);
      if (gated) pack_one(frame, worker, segments[1], p, 1, other);
      call(one, gated ? &other : nullptr);
    }
  }

  // f32 rows as a dense product (kernels/gemm.h), which gives the same bits as the kernels for
  // packed weights: for many tokens, where it is faster, and for weights as in a file, as are those
  // that training changes at every step.
  bool is_dense() const {
    if (integer || gated) return false;
    if (must_be_dense) return true;
    return segments[0].out.rows >= kDenseTokens || std::ranges::none_of(segments, &Segment::packed);
  }

  void run_dense(const Frame& frame, Worker worker, const Segment& segment) const {
    kernels::GemmTask gemm;
    gemm.rows = segment.out.rows;
    gemm.columns = segment.layout.rows;
    gemm.depth = segment.layout.columns;
    gemm.a = frame.read_floats(floats.place, worker.thread).data();
    gemm.a_stride = floats.columns;
    gemm.b = {segment.layout.dtype, segment.layout.rows, segment.layout.columns, segment.packed,
              frame.read(segment.weight, worker.thread)};
    gemm.b_transposed = true;
    gemm.c = frame.floats(segment.out.place, worker.thread).data();
    gemm.c_stride = segment.out.columns;
    gemm.scratch = frame.scratch_of(worker.thread);
    run_gemm(dense, gemm, worker, is_private);
    if (!adds) return;
    const auto first = static_cast<std::size_t>(gemm.first_column);
    const auto count = static_cast<std::size_t>(gemm.column_count);
    for (std::int64_t row = gemm.first_row; row < gemm.first_row + gemm.row_count; ++row) {
      const auto out = segment.out.write(frame, worker, row).subspan(first, count);
      kernels->add(out, residual.read(frame, worker, row).subspan(first, count), out);
    }
  }

  // Threads share the bytes of the weights evenly, in whole panels: across all segments of a group.
  void operator()(const Frame& frame, Worker worker) const {
    if (is_dense()) {
      for (const Segment& segment : segments) run_dense(frame, worker, segment);
      return;
    }
    const std::size_t count = gated ? 1 : segments.size();
    std::int64_t total = 0;
    for (std::size_t i = 0; i < count; ++i) total += segments[i].layout.total_bytes;
    const int share = is_private ? 0 : worker.thread;
    const int shares = is_private ? 1 : worker.threads;
    const std::int64_t from = total * share / shares;
    const std::int64_t to = total * (share + 1) / shares;
    std::int64_t start = 0;
    for (std::size_t i = 0; i < count; ++i) {
      const kernels::PackedLayout& layout = segments[i].layout;
      // The panels whose middle byte falls into this thread's share.
      const auto panel_at = [&](std::int64_t byte) {
        const std::int64_t panel = (byte - start + layout.panel_bytes / 2) / layout.panel_bytes;
        return std::clamp<std::int64_t>(panel, 0, layout.panels());
      };
      const Range panels{panel_at(from), share + 1 == shares ? layout.panels() : panel_at(to)};
      start += layout.total_bytes;
      if (panels.begin < panels.end) run_segment(frame, worker, i, panels);
    }
  }
};

}  // namespace

Result<StepFunction> lower_matmul(Lowering& lowering, const ir::Operation& operation) {
  Multiply multiply;
  multiply.kernels = &lowering.kernels();
  multiply.dense = gemm_kernel(lowering, operation);
  multiply.must_be_dense = multiply.dense != lowering.kernels().gemm_f32;
  const ir::ValueId input = operation.operands[0];
  multiply.integer = lowering.type(input).layout == ir::Layout::kInt8Rows;
  if (multiply.integer) {
    multiply.codes = int8_span(lowering, input);
  } else {
    multiply.floats = row_span(lowering, input);
  }
  multiply.gated = operation.is("matmul_gated");
  multiply.adds = operation.is("matmul_add");
  if (multiply.adds) multiply.residual = row_span(lowering, operation.operands[2]);
  if (operation.attributes.text("activation") == "gelu") {
    multiply.activation = kernels::Activation::kGeluTanh;
  }
  multiply.is_private = lowering.place(operation.results[0]).space == runtime::Space::kPrivate;
  const std::size_t weights = multiply.adds ? 1 : operation.operands.size() - 1;
  for (std::size_t i = 0; i < weights; ++i) {
    const ir::ValueId weight = operation.operands[i + 1];
    const ir::Type& type = lowering.type(weight);
    const auto layout = kernels::packed_layout(type.dtype, type.rows(), type.columns());
    if (!layout || (multiply.integer && !kernels::takes_int8(*layout))) {
      return lower_reference(lowering, operation);
    }
    const ir::ValueId result = operation.results[multiply.gated ? 0 : i];
    multiply.segments.push_back({*layout, lowering.place(weight),
                                 type.layout == ir::Layout::kRows16, row_span(lowering, result)});
    const auto panel = kernels::packed_layout(type.dtype, kernels::kPanelRows, type.columns());
    multiply.panel_bytes = std::max(multiply.panel_bytes, (panel->total_bytes + 63) / 64 * 64);
  }
  lowering.want_scratch(multiply.is_dense() ? kernels::kGemmScratchBytes
                                            : static_cast<std::size_t>(multiply.panel_bytes) * 2);
  return StepFunction(std::move(multiply));
}

}  // namespace hone::passes

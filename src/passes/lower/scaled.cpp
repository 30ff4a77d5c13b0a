// Lowering of products with scaled weights: factors come row-major, as what is trained lies in
// memory, and are put beside a few panels at a time.
// SPDX-License-Identifier: Apache-2.0
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

// Panels whose factors are put into scratch at a time: what a call does once, for its tokens, is
// shared by them.
constexpr std::int64_t kPanelsEach = 16;
// Of a weight's gradient that is held at a time, to be summed with the weight.
constexpr std::int64_t kSlopeBytes = 1 << 20;
constexpr int kDecodedColumns = 256;

bool is_private(const Lowering& lowering, ir::ValueId id) {
  return lowering.place(id).space == runtime::Space::kPrivate;
}

std::size_t aligned(std::int64_t bytes) { return static_cast<std::size_t>((bytes + 63) / 64 * 64); }

// A quantized weight, packed or as in a file, and how many of its columns share a factor.
struct ScaledWeight {
  kernels::PackedLayout layout;
  Place place;
  bool packed = false;
  std::int64_t group = 0;

  std::int64_t blocks() const { return layout.columns / layout.block_columns; }
  // The packed form of panel `index`, made in scratch where the weight is not packed.
  std::span<const std::byte> panel(const Frame& frame, Worker worker, std::int64_t index,
                                   std::span<std::byte> scratch, kernels::PackedLayout& one) const {
    const std::int64_t first = index * kernels::kPanelRows;
    const std::int64_t rows = std::min(kernels::kPanelRows, layout.rows - first);
    one = *kernels::packed_layout(layout.dtype, rows, layout.columns);
    const auto bytes = frame.read(place, worker.thread);
    if (packed) {
      return bytes.subspan(static_cast<std::size_t>(index * layout.panel_bytes),
                           static_cast<std::size_t>(one.total_bytes));
    }
    const auto out = scratch.first(static_cast<std::size_t>(one.total_bytes));
    kernels::pack_panels(
        one,
        bytes.subspan(static_cast<std::size_t>(dtype_bytes(layout.dtype, first * layout.columns))),
        0, 1, out);
    return out;
  }
};

// nullopt where the factors are not those of whole blocks of a quantized weight.
std::optional<ScaledWeight> scaled_weight(const Lowering& lowering, ir::ValueId weight,
                                          std::int64_t group) {
  const ir::Type& type = lowering.type(weight);
  const auto layout = kernels::packed_layout(type.dtype, type.rows(), type.columns());
  if (!layout || !kernels::takes_int8(*layout) || group % 32 != 0) return std::nullopt;
  return ScaledWeight{*layout, lowering.place(weight), type.layout == ir::Layout::kRows16, group};
}

// int8 rows times panels whose factors, base + F, lie beside them.
struct IntegerProduct {
  ScaledWeight weight;
  Int8Span codes;
  Place factors;
  RowSpan out;
  float base = 1;
  bool own = false;
  const kernels::KernelTable* kernels = nullptr;

  std::int64_t factor_bytes() const {
    return kPanelsEach * weight.blocks() * kernels::kPanelRows *
           static_cast<std::int64_t>(sizeof(float));
  }

  // (panels, blocks, 16)
  void place_factors(const Frame& frame, Worker worker, std::int64_t first, std::int64_t panels,
                     float* to) const {
    const std::int64_t blocks = weight.blocks();
    const std::int64_t pitch = weight.layout.columns / weight.group;
    const std::int64_t each = weight.group / weight.layout.block_columns;
    const float* from = frame.read_floats(factors, worker.thread).data();
    for (std::int64_t i = 0; i < panels * kernels::kPanelRows; ++i) {
      const std::int64_t row = first * kernels::kPanelRows + i;
      float* at =
          to + i / kernels::kPanelRows * blocks * kernels::kPanelRows + i % kernels::kPanelRows;
      if (row >= weight.layout.rows) {
        for (std::int64_t b = 0; b < blocks; ++b) at[b * kernels::kPanelRows] = 0;
        continue;
      }
      const float* of_row = from + row * pitch;
      for (std::int64_t g = 0; g < pitch; ++g) {
        const float factor = base + of_row[g];
        for (std::int64_t b = g * each; b < (g + 1) * each; ++b) {
          at[b * kernels::kPanelRows] = factor;
        }
      }
    }
  }

  void operator()(const Frame& frame, Worker worker) const {
    kernels::MatmulTask task;
    task.layout = weight.layout;
    task.weights = frame.read(weight.place, worker.thread);
    task.tokens = static_cast<int>(out.rows);
    task.int8 = codes.read(frame, worker);
    task.out = frame.floats(out.place, worker.thread).data();
    task.out_stride = out.columns;
    const auto scratch = frame.scratch_of(worker.thread);
    auto* const near = reinterpret_cast<float*>(scratch.data());
    task.factors = near;
    const Range share = own ? Range{0, weight.layout.panels()}
                            : share_of(weight.layout.panels(), worker.thread, worker.threads);
    const std::int64_t most = weight.packed ? kPanelsEach : 1;
    for (std::int64_t panel = share.begin; panel < share.end; panel += most) {
      const std::int64_t count = std::min(most, share.end - panel);
      place_factors(frame, worker, panel, count, near);
      kernels::MatmulTask one = task;
      one.first_panel = panel;
      one.panel_count = count;
      if (!weight.packed) {
        one.weights = weight.panel(frame, worker, panel, scratch.subspan(aligned(factor_bytes())),
                                   one.layout);
        one.first_panel = 0;
        one.out += panel * kernels::kPanelRows;
      }
      kernels->int8_matmul(one);
    }
  }
};

// f32 rows times the weight, or its transpose, as a dense product.
Result<StepFunction> dense(Lowering& lowering, const ir::Operation& operation, bool transposed) {
  const ir::Type& type = lowering.type(operation.operands[1]);
  const std::int64_t group = type.columns() / lowering.type(operation.operands[2]).columns();
  auto weight = matrix_span(lowering, operation.operands[1]);
  if (!weight || group % kernels::kGemmGranule != 0) return lower_reference(lowering, operation);
  weight->matrix.factor_columns = group;
  weight->matrix.factor_base = operation.attributes.flag("delta") ? 0.0F : 1.0F;
  const RowSpan in = row_span(lowering, operation.operands[0]);
  const RowSpan out = row_span(lowering, operation.results[0]);
  const Place factors = lowering.place(operation.operands[2]);
  const bool own = is_private(lowering, operation.results[0]);
  const GemmKernel kernel = lowering.kernels().gemm_f32;
  lowering.want_scratch(kernels::kGemmScratchBytes);
  return StepFunction([=, w = *weight](const Frame& frame, Worker worker) {
    kernels::GemmTask task;
    task.rows = out.rows;
    task.columns = static_cast<std::int64_t>(out.columns);
    task.depth = static_cast<std::int64_t>(in.columns);
    task.a = frame.read_floats(in.place, worker.thread).data();
    task.a_stride = in.columns;
    task.b = w.read(frame, worker);
    task.b.factors = frame.read_floats(factors, worker.thread).data();
    task.b_transposed = transposed;
    task.c = frame.floats(out.place, worker.thread).data();
    task.c_stride = out.columns;
    task.scratch = frame.scratch_of(worker.thread);
    run_gemm(kernel, task, worker, own);
  });
}

// Some panels' rows of dy^T x at a time, each summed with the weight's own row.
struct FactorGradient {
  ScaledWeight weight;
  RowSpan dy, x, out;
  const kernels::KernelTable* kernels = nullptr;

  std::int64_t rows_each() const {
    const auto row = weight.layout.columns * static_cast<std::int64_t>(sizeof(float));
    return std::clamp<std::int64_t>(kSlopeBytes / row, 1, 256) / kernels::kPanelRows *
               kernels::kPanelRows +
           kernels::kPanelRows;
  }
  // Scratch: of the dense product, slopes, decoded weights, a packed panel.
  std::size_t slopes_at() const { return kernels::kGemmScratchBytes; }
  std::size_t decoded_at() const {
    return slopes_at() + aligned(rows_each() * weight.layout.columns * 4);
  }
  std::size_t panel_at() const {
    return decoded_at() + aligned(kDecodedColumns * kernels::kPanelRows * 4);
  }
  std::size_t scratch_bytes() const { return panel_at() + aligned(weight.layout.panel_bytes); }

  void sum_panel(const Frame& frame, Worker worker, std::int64_t panel, const float* slopes) const {
    const auto scratch = frame.scratch_of(worker.thread);
    kernels::PackedLayout one;
    const auto bytes = weight.panel(frame, worker, panel, scratch.subspan(panel_at()), one);
    const std::span<float> decoded(reinterpret_cast<float*>(scratch.data() + decoded_at()),
                                   kDecodedColumns * kernels::kPanelRows);
    const std::int64_t columns = weight.layout.columns;
    for (std::int64_t column = 0; column < columns; column += kDecodedColumns) {
      const auto count =
          static_cast<int>(std::min<std::int64_t>(kDecodedColumns, columns - column));
      kernels->decode_weights(one, bytes, 0, column, count, decoded);
      for (std::int64_t row = 0; row < one.rows; ++row) {
        const auto to = out.write(frame, worker, panel * kernels::kPanelRows + row);
        const float* slope = slopes + row * columns + column;
        const float* of_row = decoded.data() + row;
        for (std::int64_t c = 0; c < count; c += 32) {
          float sum = 0;
          for (std::int64_t i = c; i < c + 32; ++i) {
            sum += slope[i] * of_row[i * kernels::kPanelRows];
          }
          float& total = to[static_cast<std::size_t>((column + c) / weight.group)];
          total = (column + c) % weight.group == 0 ? sum : total + sum;
        }
      }
    }
  }

  void operator()(const Frame& frame, Worker worker) const {
    const Range share = share_of(weight.layout.panels(), worker.thread, worker.threads);
    const std::int64_t end = std::min(weight.layout.rows, share.end * kernels::kPanelRows);
    const auto scratch = frame.scratch_of(worker.thread);
    auto* const slopes = reinterpret_cast<float*>(scratch.data() + slopes_at());
    for (std::int64_t row = share.begin * kernels::kPanelRows; row < end; row += rows_each()) {
      kernels::GemmTask task;
      task.rows = std::min(rows_each(), end - row);
      task.columns = weight.layout.columns;
      task.depth = dy.rows;
      task.a = frame.read_floats(dy.place, worker.thread).data() + row;
      task.a_stride = dy.columns;
      task.a_transposed = true;
      const auto bytes = frame.read(x.place, worker.thread);
      task.b = {DType::kF32, x.rows, weight.layout.columns, false, bytes};
      task.c = slopes;
      task.c_stride = static_cast<std::size_t>(weight.layout.columns);
      task.scratch = scratch;
      kernels::set_gemm_share(task, 0, 1);
      kernels->gemm_f32(task);
      for (std::int64_t i = 0; i < task.rows; i += kernels::kPanelRows) {
        sum_panel(frame, worker, (row + i) / kernels::kPanelRows,
                  slopes + i * weight.layout.columns);
      }
    }
  }
};

}  // namespace

Result<StepFunction> lower_matmul_scaled(Lowering& lowering, const ir::Operation& operation) {
  const ir::ValueId input = operation.operands[0];
  if (lowering.type(input).layout != ir::Layout::kInt8Rows) return dense(lowering, operation, true);
  const ir::Type& factors = lowering.type(operation.operands[2]);
  const auto weight =
      scaled_weight(lowering, operation.operands[1],
                    lowering.type(operation.operands[1]).columns() / factors.columns());
  if (!weight) return lower_reference(lowering, operation);
  IntegerProduct product;
  product.weight = *weight;
  product.codes = int8_span(lowering, input);
  product.factors = lowering.place(operation.operands[2]);
  product.out = row_span(lowering, operation.results[0]);
  product.base = operation.attributes.flag("delta") ? 0.0F : 1.0F;
  product.own = is_private(lowering, operation.results[0]);
  product.kernels = &lowering.kernels();
  const std::int64_t panel = weight->packed ? 0 : weight->layout.panel_bytes;
  lowering.want_scratch(aligned(product.factor_bytes()) + aligned(panel));
  return StepFunction(product);
}

Result<StepFunction> lower_matmul_scaled_back(Lowering& lowering, const ir::Operation& operation) {
  return dense(lowering, operation, false);
}

Result<StepFunction> lower_matmul_scaled_outer(Lowering& lowering, const ir::Operation& operation) {
  const auto weight =
      scaled_weight(lowering, operation.operands[2], operation.attributes.integer("group"));
  if (!weight) return lower_reference(lowering, operation);
  FactorGradient gradient;
  gradient.weight = *weight;
  gradient.dy = row_span(lowering, operation.operands[0]);
  gradient.x = row_span(lowering, operation.operands[1]);
  gradient.out = row_span(lowering, operation.results[0]);
  gradient.kernels = &lowering.kernels();
  lowering.want_scratch(gradient.scratch_bytes());
  return StepFunction(gradient);
}

Result<StepFunction> lower_dequantize(Lowering& lowering, const ir::Operation& operation) {
  const Int8Span in = int8_span(lowering, operation.operands[0]);
  const RowSpan out = row_span(lowering, operation.results[0]);
  return StepFunction([=](const Frame& frame, Worker worker) {
    const Range rows = rows_of(out.rows, out.place, worker);
    for (std::int64_t row = rows.begin; row < rows.end; ++row) {
      const Int8Span::Row from = in.write(frame, worker, row);
      const auto to = out.write(frame, worker, row);
      for (std::size_t i = 0; i < to.size(); ++i) {
        to[i] = from.scales[i / 32] * static_cast<float>(from.codes[i]);
      }
    }
  });
}

}  // namespace hone::passes

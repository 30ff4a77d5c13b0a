// Lowering of the products of training: a matmul's gradients to its input and to its weight.
// SPDX-License-Identifier: Apache-2.0
#include "passes/lower/dense_product.h"

#include "ops/rounding.h"
#include "ops/signs_support.h"
#include "passes/lower/lower.h"

namespace hone::passes {
namespace {

using runtime::Frame;
using runtime::StepFunction;
using runtime::Worker;

bool is_private(const Lowering& lowering, ir::ValueId id) {
  return lowering.place(id).space == runtime::Space::kPrivate;
}

}  // namespace

std::optional<MatrixSpan> matrix_span(const Lowering& lowering, ir::ValueId id) {
  const ir::Type& type = lowering.type(id);
  if (!kernels::takes_gemm(type.dtype, type.rows(), type.columns())) return std::nullopt;
  MatrixSpan span;
  span.place = lowering.place(id);
  span.matrix.dtype = type.dtype;
  span.matrix.rows = type.rows();
  span.matrix.columns = type.columns();
  span.matrix.packed = type.layout == ir::Layout::kRows16;
  return span;
}

GemmKernel gemm_kernel(const Lowering& lowering, const ir::Operation& operation) {
  const bool bf16 = ops::rounds_to_bf16(operation.attributes);
  return bf16 ? lowering.kernels().gemm_bf16 : lowering.kernels().gemm_f32;
}

void run_gemm(GemmKernel kernel, kernels::GemmTask& task, Worker worker, bool is_private) {
  kernels::set_gemm_share(task, is_private ? 0 : worker.thread, is_private ? 1 : worker.threads);
  if (task.row_count > 0) kernel(task);
}

Result<StepFunction> lower_matmul_back(Lowering& lowering, const ir::Operation& operation) {
  const RowSpan dy = row_span(lowering, operation.operands[0]);
  const auto weight = matrix_span(lowering, operation.operands[1]);
  if (!weight) return lower_reference(lowering, operation);
  const RowSpan out = row_span(lowering, operation.results[0]);
  const bool own = is_private(lowering, operation.results[0]);
  lowering.want_scratch(kernels::kGemmScratchBytes);
  const GemmKernel kernel = gemm_kernel(lowering, operation);
  return StepFunction([=, w = *weight](const Frame& frame, Worker worker) {
    kernels::GemmTask task;
    task.rows = dy.rows;
    task.columns = w.matrix.columns;
    task.depth = w.matrix.rows;
    task.a = frame.read_floats(dy.place, worker.thread).data();
    task.a_stride = dy.columns;
    task.b = w.read(frame, worker);
    task.c = frame.floats(out.place, worker.thread).data();
    task.c_stride = out.columns;
    task.scratch = frame.scratch_of(worker.thread);
    run_gemm(kernel, task, worker, own);
  });
}

Result<StepFunction> lower_matmul_outer(Lowering& lowering, const ir::Operation& operation) {
  const RowSpan dy = row_span(lowering, operation.operands[0]);
  const auto x = matrix_span(lowering, operation.operands[1]);
  if (!x) return lower_reference(lowering, operation);
  const RowSpan out = row_span(lowering, operation.results[0]);
  lowering.want_scratch(kernels::kGemmScratchBytes);
  const GemmKernel kernel = gemm_kernel(lowering, operation);
  return StepFunction([=, x = *x](const Frame& frame, Worker worker) {
    kernels::GemmTask task;
    task.rows = static_cast<std::int64_t>(dy.columns);
    task.columns = x.matrix.columns;
    task.depth = dy.rows;
    task.a = frame.read_floats(dy.place, worker.thread).data();
    task.a_stride = dy.columns;
    task.a_transposed = true;
    task.b = x.read(frame, worker);
    task.c = frame.floats(out.place, worker.thread).data();
    task.c_stride = out.columns;
    task.scratch = frame.scratch_of(worker.thread);
    run_gemm(kernel, task, worker, false);
  });
}

Result<StepFunction> lower_matmul_signs(Lowering& lowering, const ir::Operation& operation) {
  const RowSpan x = row_span(lowering, operation.operands[0]);
  const runtime::Place words = lowering.place(operation.operands[1]);
  const RowSpan out = row_span(lowering, operation.results[0]);
  const std::int64_t tensor = operation.attributes.integer("tensor");
  const bool own = is_private(lowering, operation.results[0]);
  lowering.want_scratch(kernels::kGemmScratchBytes);
  const GemmKernel kernel = lowering.kernels().gemm_f32;
  return StepFunction([=](const Frame& frame, Worker worker) {
    const DirectionKey key = ops::signs_key(frame.read_integers(words, worker.thread), tensor);
    kernels::GemmTask task;
    task.rows = x.rows;
    task.columns = static_cast<std::int64_t>(out.columns);
    task.depth = static_cast<std::int64_t>(x.columns);
    task.a = frame.read_floats(x.place, worker.thread).data();
    task.a_stride = x.columns;
    task.b.rows = task.columns;
    task.b.columns = task.depth;
    task.b.signs = &key;
    task.b_transposed = true;
    task.c = frame.floats(out.place, worker.thread).data();
    task.c_stride = out.columns;
    task.scratch = frame.scratch_of(worker.thread);
    run_gemm(kernel, task, worker, own);
  });
}

Result<StepFunction> lower_scale_rows(Lowering& lowering, const ir::Operation& operation) {
  const RowSpan x = row_span(lowering, operation.operands[0]);
  const runtime::Place factors = lowering.place(operation.operands[1]);
  const RowSpan out = row_span(lowering, operation.results[0]);
  const auto scale = lowering.kernels().scale;
  return StepFunction([=](const Frame& frame, Worker worker) {
    const auto each = frame.read_floats(factors, worker.thread);
    const Range rows = rows_of(out.rows, out.place, worker);
    for (std::int64_t row = rows.begin; row < rows.end; ++row) {
      scale(x.read(frame, worker, row), each[static_cast<std::size_t>(row)],
            out.write(frame, worker, row));
    }
  });
}

}  // namespace hone::passes

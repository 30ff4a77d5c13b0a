// How lowering rules call the dense products (kernels/gemm.h).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>

#include "kernels/gemm.h"
#include "passes/lower/support.h"

namespace hone::passes {

// A value as the right operand of a dense product: numbers, or weights of any type and layout.
struct MatrixSpan {
  runtime::Place place;
  kernels::GemmMatrix matrix;  // without bytes

  kernels::GemmMatrix read(const runtime::Frame& frame, runtime::Worker worker) const {
    kernels::GemmMatrix out = matrix;
    out.bytes = frame.read(place, worker.thread);
    return out;
  }
};

// nullopt for a type that the kernels do not decode.
std::optional<MatrixSpan> matrix_span(const Lowering& lowering, ir::ValueId id);

using GemmKernel = void (*)(const kernels::GemmTask& task);

// In the arithmetic that the operation's attribute `rounding` asks for.
GemmKernel gemm_kernel(const Lowering& lowering, const ir::Operation& operation);

// Computes this worker's share of `task` (the whole, where the result is its own).
void run_gemm(GemmKernel kernel, kernels::GemmTask& task, runtime::Worker worker, bool is_private);

}  // namespace hone::passes

// Matrix multiplication on the best instruction set.
// SPDX-License-Identifier: Apache-2.0
#include "kernels/matmul.h"

#include "kernels/registry.h"

namespace hone::kernels {

void matmul_int8(const MatmulTask& task) { kernels().int8_matmul(task); }

void matmul_int8_gated(const MatmulTask& gate, const MatmulTask& up, Activation activation) {
  kernels().int8_matmul_gated(gate, up, activation);
}

void matmul_f32(const MatmulTask& task) { kernels().f32_matmul(task); }

void matmul_f32_gated(const MatmulTask& gate, const MatmulTask& up, Activation activation) {
  kernels().f32_matmul_gated(gate, up, activation);
}

}  // namespace hone::kernels

// Weights of every type as f32 times f32 activations.
// SPDX-License-Identifier: Apache-2.0
#include "kernels/matmul_finish.h"
#include "kernels/matmul_panel.h"

namespace hone::kernels::HONE_ISA_NAMESPACE {
void f32_matmul(const MatmulTask&) {}
void f32_matmul_gated(const MatmulTask&, const MatmulTask&, Activation) {}
}  // namespace hone::kernels::HONE_ISA_NAMESPACE

// Activations times packed weights: y[n][row] = sum over columns of x[n][column] * W[row][column].
// SPDX-License-Identifier: Apache-2.0
//
// Shapes: N tokens, K columns (inputs), rows (outputs). Every result is a pure function of its
// token and its weight row: the bits do not depend on N, on the panels that a call is given, or on
// the tile that computes it, and they are the same on every instruction set.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/packed.h"

namespace hone::kernels {

// Activations as symmetric 8-bit blocks of 32 columns: x = scale * code, code in [-127, 127].
struct Int8Rows {
  const std::int8_t* codes = nullptr;  // (N, K)
  const float* scales = nullptr;       // (N, K / 32)
  const float* sums = nullptr;         // (N, K / 32): scale * (sum of the block's codes)
};

struct FloatRows {
  const float* values = nullptr;  // (N, K)
  std::size_t stride = 0;         // floats between tokens, at least K
};

enum class Activation : std::uint8_t { kSilu, kGeluTanh };

// The part of one multiplication that one thread does: some panels, all tokens.
struct MatmulTask {
  PackedLayout layout;
  std::span<const std::byte> weights;  // the whole tensor, layout.total_bytes; 64-byte aligned is
                                       // fastest
  std::int64_t first_panel = 0;
  std::int64_t panel_count = 0;
  int tokens = 1;                   // N
  Int8Rows int8;                    // input of matmul_int8 and matmul_int8_gated
  FloatRows floats;                 // input of matmul_f32 and matmul_f32_gated
  float* out = nullptr;             // y[n][row] at out[n * out_stride + row]
  std::size_t out_stride = 0;       // floats between tokens, at least layout.rows
  const float* bias = nullptr;      // (rows) or none
  const float* residual = nullptr;  // y[n][row] is added to residual[n * residual_stride + row];
  std::size_t residual_stride = 0;  // may be out itself
  // Of matmul_int8: every block's scale and minimum times a factor of its own, (panel_count, blocks
  // of a row, 16); none: as they are. The scale's product is rounded to 22 bits.
  const float* factors = nullptr;
};

// Block-quantized weights times 8-bit activations. Per block of columns: an exact integer dot
// product, times the weight scale (rounded to f32), and one fused multiply-add with the activation
// scale; the minimum one more with the block's sum.
void matmul_int8(const MatmulTask& task);

// y = activation(x gate^T) * (x up^T), one panel of both at a time: the two products never reach
// memory. Input, output, panels, bias and residual are the gate's; of `up` only layout (the same
// dtype and shape), weights and bias are read. The residual is added after the product.
void matmul_int8_gated(const MatmulTask& gate, const MatmulTask& up, Activation activation);

// Weights of every type as f32, f32 activations, f32 fused multiply-adds in column order: the
// reference arithmetic, and the path of F32, F16 and BF16 weights.
void matmul_f32(const MatmulTask& task);
void matmul_f32_gated(const MatmulTask& gate, const MatmulTask& up, Activation activation);

// Whether matmul_int8 takes this layout: all block-quantized types.
inline bool takes_int8(const PackedLayout& layout) { return layout.scales != ScaleKind::kNone; }

}  // namespace hone::kernels

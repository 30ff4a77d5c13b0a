// Decodes panels of packed weights to f32: the bits that the formats' decoders give.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/matmul_panel.h"

namespace hone::kernels::HONE_ISA_NAMESPACE {
namespace {

// Format F's 32 columns from `unit` on: (32, 16) f32, `pitch` floats from column to column.
template <typename F>
HONE_INLINE void decode_unit(const PanelBytes& panel, std::int64_t unit, float zero_point,
                             float* out, std::ptrdiff_t pitch) {
  const std::byte* codes = panel.codes + unit * F::kLines * kLineBytes;
  each_index<F::kBlocks>([&]<int kBlock>() HONE_LAMBDA {
    const BlockScales block = F::block_scales(panel.scales, unit * F::kBlocks + kBlock);
    each_index<F::kQuads>([&]<int kQuad>() HONE_LAMBDA {
      constexpr int kOfUnit = kBlock * F::kQuads + kQuad;
      const Codes quad = F::template quad<kOfUnit>(codes);
      each_index<4>([&]<int kColumn>() HONE_LAMBDA {
        Floats code = floats_of_column<kColumn>(quad);
        // Two roundings with a minimum, as the decoders do it.
        if constexpr (F::kMinimum) {
          code = add(multiply(block.scale, code), block.minimum);
        } else {
          code = multiply(block.scale, subtract(code, splat(zero_point)));
        }
        store_floats(code, out + (4 * kOfUnit + kColumn) * pitch);
      });
    });
  });
}

inline void decode_plain(const PackedLayout& layout, const std::byte* panel,
                         std::int64_t first_column, int columns, float* out, std::ptrdiff_t pitch) {
  constexpr std::int64_t kRowBytes = 4 * kPanelRows;  // of f32, and of a pair of bf16
  const std::byte* from =
      panel + first_column * (layout.codes == CodeKind::kF32 ? kRowBytes : kRowBytes / 2);
  for (int column = 0; column < columns; ++column) {
    Floats value;
    if (layout.codes == CodeKind::kF32) {
      value = load_floats(reinterpret_cast<const float*>(from + column * kRowBytes));
    } else if (layout.codes == CodeKind::kF16) {
      value = floats_of_halves(from + column * (kRowBytes / 2));
    } else {
      const std::byte* pair = from + column / 2 * kRowBytes;
      value = column % 2 == 0 ? floats_of_bf16_pairs<0>(pair) : floats_of_bf16_pairs<1>(pair);
    }
    store_floats(value, out + column * pitch);
  }
}

// Columns [first_column, first_column + columns) of the 16 rows of a panel: out[column * pitch +
// row]. Quantized types: whole units of 32 columns.
inline void decode_panel(const PackedLayout& layout, const std::byte* weights, std::int64_t panel,
                         std::int64_t first_column, int columns, float* out, std::ptrdiff_t pitch) {
  const PanelBytes bytes = panel_bytes(layout, weights, panel);
  if (layout.scales == ScaleKind::kNone) {
    decode_plain(layout, bytes.scales, first_column, columns, out, pitch);
    return;
  }
  const auto zero_point = static_cast<float>(layout.zero_point);
  visit_format(layout, [&]<typename F>(F) {
    for (int column = 0; column < columns; column += kUnitColumns) {
      decode_unit<F>(bytes, (first_column + column) / kUnitColumns, zero_point,
                     out + column * pitch, pitch);
    }
  });
}

}  // namespace
}  // namespace hone::kernels::HONE_ISA_NAMESPACE

// Reads panels of packed weights: quads of codes, and scales, of each kind of layout.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/matmul_lanes.h"
#include "kernels/packed.h"

namespace hone::kernels::HONE_ISA_NAMESPACE {
namespace {

// A "unit" is 32 columns of a panel: kBits lines of codes, and one or two blocks.
inline constexpr int kUnitColumns = 32;
inline constexpr int kUnitQuads = 8;
inline constexpr std::int64_t kLineBytes = 64;

// A block's result is its integer dot product plus kOffset, read as a float: the integer
// 0x4b400000 + i has the bits of the f32 kOffset + i for |i| <= 2^22, so that no conversion is
// needed, and scale * i = scale * (kOffset + i) - scale * kOffset in one fused operation with one
// rounding; scale * kOffset is exact since scales have at most 19 significant bits.
inline constexpr float kOffset = 12582912.0F;  // 1.5 * 2^23
inline constexpr std::int32_t kOffsetBits = 0x4b400000;

struct BlockScales {
  Floats scale;
  Floats offset;   // kOffset * scale
  Floats minimum;  // unset if the layout has none
};

template <CodeKind kCodeKind, ScaleKind kScaleKind, bool kHasMinimum, int kBlocksOfUnit>
struct Format {
  static constexpr CodeKind kCodes = kCodeKind;
  static constexpr ScaleKind kScales = kScaleKind;
  static constexpr bool kMinimum = kHasMinimum;
  static constexpr int kBlocks = kBlocksOfUnit;
  static constexpr int kQuads = kUnitQuads / kBlocks;  // of a block
  static constexpr int kLines = kCodes == CodeKind::kU2   ? 2
                                : kCodes == CodeKind::kU3 ? 3
                                : kCodes == CodeKind::kU5 ? 5
                                : kCodes == CodeKind::kU6 ? 6
                                : kCodes == CodeKind::kU8 ? 8
                                                          : 4;
  static constexpr int kCodeBits = kCodes == CodeKind::kTable4 ? 8 : kLines;

  // Quad kIndex of the unit whose lines begin at `unit`. Loads repeat: the compiler merges them.
  template <int kIndex>
  static HONE_INLINE Codes quad(const std::byte* unit) {
    constexpr int kPair = 2 * (kIndex % 4);  // bit position in a two-bit plane
    if constexpr (kCodes == CodeKind::kU8) {
      return load_codes(unit + kIndex * kLineBytes);
    } else if constexpr (kCodes == CodeKind::kU2 || kCodes == CodeKind::kU3) {
      const Codes low = bits<kPair, 3>(load_codes(unit + kIndex / 4 * kLineBytes));
      if constexpr (kCodes == CodeKind::kU2) return low;
      return insert_bits<kIndex - 2, 4>(low, load_codes(unit + 2 * kLineBytes));
    } else {
      const Codes low = bits<4 * (kIndex % 2), 15>(load_codes(unit + kIndex / 2 * kLineBytes));
      if constexpr (kCodes == CodeKind::kTable4) {
        return look_up(low, kTable4Codes);
      } else if constexpr (kCodes == CodeKind::kU5) {
        return insert_bits<kIndex - 4, 16>(low, load_codes(unit + 4 * kLineBytes));
      } else if constexpr (kCodes == CodeKind::kU6) {
        return insert_bits<kPair - 4, 48>(low, load_codes(unit + (4 + kIndex / 4) * kLineBytes));
      } else {
        return low;
      }
    }
  }

  // Of block `index` of the panel whose scales begin at `scales`.
  static HONE_INLINE BlockScales block_scales(const std::byte* scales, std::int64_t index) {
    BlockScales out;
    constexpr int kPlanes = kMinimum ? 2 : 1;
    if constexpr (kScales == ScaleKind::kF16) {
      const std::byte* at = scales + index * (32 * kPlanes);
      out.scale = floats_of_halves(at);
      if constexpr (kMinimum) out.minimum = floats_of_halves(at + 32);
    } else {
      constexpr int kBlocksOfSuper = 256 / kUnitColumns * kBlocks;
      constexpr int kSuperBytes = kPlanes * (32 + 16 * kBlocksOfSuper);
      const std::byte* super = scales + index / kBlocksOfSuper * kSuperBytes;
      const std::byte* at = super + kPlanes * (32 + 16 * (index % kBlocksOfSuper));
      const Floats factor = floats_of_halves(super);
      if constexpr (kMinimum) {
        out.scale = multiply(factor, floats_of_u8(at));
        out.minimum =
            subtract(splat(0.0F), multiply(floats_of_halves(super + 32), floats_of_u8(at + 16)));
      } else {
        out.scale = multiply(factor, floats_of_i8(at));
      }
    }
    out.offset = multiply(out.scale, splat(kOffset));
    return out;
  }
};

// scale * kOffset has to stay exact: the scale's product is rounded to 22 bits (Veltkamp 1968: x
// times 2^2 + 1, and back), which leaves scales of 19 bits times 1 as they are.
template <typename F>
HONE_INLINE BlockScales times_factor(BlockScales block, Floats factor) {
  const Floats scale = multiply(block.scale, factor);
  const Floats five = multiply(scale, splat(5.0F));
  block.scale = subtract(five, subtract(five, scale));
  block.offset = multiply(block.scale, splat(kOffset));
  if constexpr (F::kMinimum) block.minimum = multiply(block.minimum, factor);
  return block;
}

// A panel's place in memory.
struct PanelBytes {
  const std::byte* scales;
  const std::byte* codes;
  const float* factors = nullptr;  // (blocks of a row, 16), of a scaled product
};

HONE_INLINE PanelBytes panel_bytes(const PackedLayout& layout, const std::byte* weights,
                                   std::int64_t panel) {
  const std::byte* begin = weights + panel * layout.panel_bytes;
  return {begin, begin + layout.scale_bytes};
}

// Calls visit(Format<...>()) for the layout's kind of quantized weights.
template <typename Visit>
HONE_INLINE void visit_format(const PackedLayout& layout, Visit visit) {
  switch (layout.dtype) {
    case DType::kQ4_0: return visit(Format<CodeKind::kU4, ScaleKind::kF16, false, 1>());
    case DType::kQ4_1: return visit(Format<CodeKind::kU4, ScaleKind::kF16, true, 1>());
    case DType::kQ5_0: return visit(Format<CodeKind::kU5, ScaleKind::kF16, false, 1>());
    case DType::kQ5_1: return visit(Format<CodeKind::kU5, ScaleKind::kF16, true, 1>());
    case DType::kQ8_0: return visit(Format<CodeKind::kU8, ScaleKind::kF16, false, 1>());
    case DType::kIQ4_NL: return visit(Format<CodeKind::kTable4, ScaleKind::kF16, false, 1>());
    case DType::kQ2_K: return visit(Format<CodeKind::kU2, ScaleKind::kSuper, true, 2>());
    case DType::kQ3_K: return visit(Format<CodeKind::kU3, ScaleKind::kSuper, false, 2>());
    case DType::kQ4_K: return visit(Format<CodeKind::kU4, ScaleKind::kSuper, true, 1>());
    case DType::kQ5_K: return visit(Format<CodeKind::kU5, ScaleKind::kSuper, true, 1>());
    case DType::kQ6_K: return visit(Format<CodeKind::kU6, ScaleKind::kSuper, false, 2>());
    default: return;
  }
}

}  // namespace
}  // namespace hone::kernels::HONE_ISA_NAMESPACE

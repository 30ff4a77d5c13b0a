// Weights repacked for matrix multiplication: 16 output rows side by side, codes kept as they are.
// SPDX-License-Identifier: Apache-2.0
//
// Panel p holds rows 16p .. 16p + 15 (rows past the last are zeros). A panel is its scales, block
// after block along the columns, and then its codes, block after block, so that code loads stay on
// cache lines. 64 bytes of unpacked codes are 4 consecutive columns ("a quad") of 16 rows, 4 bytes
// a row: what a byte dot product with 4 lanes (VPDPBUSD) takes. Nothing is rounded: the packed form
// is a permutation of the source's bits.
//
// Weight = scale * (code - zero_point), or scale * code + minimum.
//   scales, kF16       block: [16 rows] f16 scale, then [16] f16 minimum if there is one
//   scales, kSuper     per 256 columns: [16] f16 scale, then [16] f16 minimum factor; then for each
//                      of its blocks [16] 8-bit sub-scale (signed if no minimum), [16] u8
//                      sub-minimum; scale = f16 * sub-scale, minimum = -(f16 * sub-minimum)
//   codes              per 32 columns (a unit), bits-of-a-code lines of 64 bytes:
//     kU4, kTable4     two quads a line: low nibbles quad 2i, high nibbles quad 2i + 1
//     kU2              four quads a line: bits 2i, 2i + 1 are quad i
//     kU5              as kU4, then a line with bit i of each byte = bit 4 of quad i
//     kU6              as kU4, then two lines as kU2 with bits 4 and 5
//     kU3              as kU2, then a line with bit i of each byte = bit 2 of quad i
//     kU8              one quad a line; Q8_0's codes are stored + 128
//   kF32, kF16         [columns][16 rows]
//   kBF16              [columns / 2][16 rows][2 columns], the last pair filled with zero
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/dtype.h"

namespace hone::kernels {

inline constexpr std::int64_t kPanelRows = 16;

enum class CodeKind : std::uint8_t { kU2, kU3, kU4, kTable4, kU5, kU6, kU8, kF32, kF16, kBF16 };
enum class ScaleKind : std::uint8_t { kNone, kF16, kSuper };

// Of the bytes that a layout means: raised with every change of them, as packed weights are kept in
// files (engine/packed_file.h).
inline constexpr int kPackedVersion = 1;

struct PackedLayout {
  DType dtype = DType::kF32;
  CodeKind codes = CodeKind::kF32;
  ScaleKind scales = ScaleKind::kNone;
  bool minimum = false;   // weight = scale * code + minimum
  int block_columns = 1;  // columns that share a scale: 32 or 16; 1 for plain numbers
  int zero_point = 0;     // weight = scale * (code - zero_point)
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  std::int64_t scale_bytes = 0;  // of one panel; its codes begin here
  std::int64_t panel_bytes = 0;
  std::int64_t total_bytes = 0;  // of all panels

  std::int64_t panels() const { return (rows + kPanelRows - 1) / kPanelRows; }
};

// Of a (rows, columns) matrix of that type; nullopt if the type holds no weights (integers, f64),
// columns are no multiple of its block, or a size is not positive or past 2^31 (columns: 2^18).
// Bytes beside the source's: equal for kQ4_0, kQ4_1, kQ5_0, kQ5_1, kQ8_0, kIQ4_NL, kF32, kF16 and
// kBF16 (even columns) when rows are a multiple of 16; a weight takes 4.63 bits as kQ4_K (4.5),
// 5.63 as kQ5_K (5.5), 6.56 as kQ6_K (6.56), 3.56 as kQ3_K (3.44), 3.13 as kQ2_K (2.63).
std::optional<PackedLayout> packed_layout(DType dtype, std::int64_t rows, std::int64_t columns);

// Packs panels [first_panel, first_panel + panel_count) of the row-major source (dtype_bytes(rows *
// columns) bytes, as in a file) into their places in out (layout.total_bytes). Panels are apart, so
// that threads can share the work.
void pack_panels(const PackedLayout& layout, std::span<const std::byte> source,
                 std::int64_t first_panel, std::int64_t panel_count, std::span<std::byte> out);

// One row as f32 (columns values): the same bits that the format's decoder gives.
void unpack_row(const PackedLayout& layout, std::span<const std::byte> packed, std::int64_t row,
                std::span<float> out);

// IQ4_NL's sixteen values, as code + 128.
inline constexpr std::uint8_t kTable4Codes[16] = {
    128 - 127, 128 - 104, 128 - 83, 128 - 65, 128 - 49, 128 - 35, 128 - 22, 128 - 10,
    128 + 1,   128 + 13,  128 + 25, 128 + 38, 128 + 53, 128 + 69, 128 + 89, 128 + 113};

}  // namespace hone::kernels

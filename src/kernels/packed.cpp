// Packing of weights into panels of 16 rows, and single rows back as f32. Scalar.
// SPDX-License-Identifier: Apache-2.0
#include "kernels/packed.h"

#include <algorithm>
#include <cstring>

#include "base/half.h"
#include "quant/blocks.h"

namespace hone::kernels {
namespace {

constexpr std::int64_t kUnit = 32;       // columns
constexpr std::int64_t kSuper = 256;     // columns
constexpr std::int64_t kLineBytes = 64;  // 16 rows of 4 bytes
constexpr std::int64_t kMostRows = std::int64_t{1} << 31;
constexpr std::int64_t kMostColumns = std::int64_t{1} << 18;

struct Kind {
  DType dtype;
  CodeKind codes;
  ScaleKind scales;
  bool minimum;
  int block_columns;
  int zero_point;
};

constexpr Kind kKinds[] = {
    {DType::kF32, CodeKind::kF32, ScaleKind::kNone, false, 1, 0},
    {DType::kF16, CodeKind::kF16, ScaleKind::kNone, false, 1, 0},
    {DType::kBF16, CodeKind::kBF16, ScaleKind::kNone, false, 1, 0},
    {DType::kQ4_0, CodeKind::kU4, ScaleKind::kF16, false, 32, 8},
    {DType::kQ4_1, CodeKind::kU4, ScaleKind::kF16, true, 32, 0},
    {DType::kQ5_0, CodeKind::kU5, ScaleKind::kF16, false, 32, 16},
    {DType::kQ5_1, CodeKind::kU5, ScaleKind::kF16, true, 32, 0},
    {DType::kQ8_0, CodeKind::kU8, ScaleKind::kF16, false, 32, 128},
    {DType::kIQ4_NL, CodeKind::kTable4, ScaleKind::kF16, false, 32, 128},
    {DType::kQ2_K, CodeKind::kU2, ScaleKind::kSuper, true, 16, 0},
    {DType::kQ3_K, CodeKind::kU3, ScaleKind::kSuper, false, 16, 4},
    {DType::kQ4_K, CodeKind::kU4, ScaleKind::kSuper, true, 32, 0},
    {DType::kQ5_K, CodeKind::kU5, ScaleKind::kSuper, true, 32, 0},
    {DType::kQ6_K, CodeKind::kU6, ScaleKind::kSuper, false, 16, 32},
};

// Lines of codes of a unit (32 columns of 16 rows) = bits of a code.
constexpr int lines_of_unit(CodeKind codes) {
  switch (codes) {
    case CodeKind::kU2: return 2;
    case CodeKind::kU3: return 3;
    case CodeKind::kU5: return 5;
    case CodeKind::kU6: return 6;
    case CodeKind::kU8: return 8;
    default: return 4;
  }
}

std::int64_t element_bytes(CodeKind codes) { return codes == CodeKind::kF32 ? 4 : 2; }

// One source block of one row, taken apart.
struct RowBlock {
  std::uint8_t codes[kSuper];
  std::uint16_t scale;    // f16
  std::uint16_t minimum;  // f16
  std::uint8_t sub_scales[16];
  std::uint8_t sub_minimums[16];
};

template <typename Block>
Block read_block(const std::byte* from) {
  Block block;
  std::memcpy(&block, from, sizeof(block));
  return block;
}

template <typename Block>
void split_low(const Block& block, RowBlock& out) {
  for (int i = 0; i < 16; ++i) {
    out.codes[i] = block.low[i] & 15;
    out.codes[i + 16] = static_cast<std::uint8_t>(block.low[i] >> 4);
  }
}

template <typename Block>
void split_five(const Block& block, RowBlock& out) {
  split_low(block, out);
  for (int i = 0; i < 4; ++i) {
    // Bit k of a byte to bit 4 of byte k of a word: copies, one bit of each kept, then moved.
    const std::uint64_t copies = block.high[i] * 0x0101010101010101u;
    const std::uint64_t kept = copies & 0x8040201008040201u;
    const std::uint64_t high = ((kept + 0x7f7f7f7f7f7f7f7fu) >> 3) & 0x1010101010101010u;
    std::uint64_t eight;
    std::memcpy(&eight, out.codes + 8 * i, sizeof(eight));
    eight |= high;
    std::memcpy(out.codes + 8 * i, &eight, sizeof(eight));
  }
}

// Two-bit parts: byte 32 h + l holds weights 128 h + l + {0, 32, 64, 96}; shifted left by `place`.
void add_two_bits(const std::uint8_t (&parts)[64], int place, RowBlock& out) {
  for (int half = 0; half < 2; ++half) {
    for (int quarter = 0; quarter < 4; ++quarter) {
      std::uint8_t codes[32];
      std::uint8_t* to = out.codes + 128 * half + 32 * quarter;
      std::memcpy(codes, to, sizeof(codes));
      for (int l = 0; l < 32; ++l) {
        const int two = (parts[32 * half + l] >> (2 * quarter)) & 3;
        codes[l] = static_cast<std::uint8_t>(codes[l] | (two << place));
      }
      std::memcpy(to, codes, sizeof(codes));
    }
  }
}

template <typename Block>
void split_four_k(const Block& block, RowBlock& out) {
  out.scale = block.scale;
  out.minimum = block.minimum;
  for (int j = 0; j < 8; ++j) {
    const quant::ScalePair pair = quant::unpack_scale_pair(block.scales, j);
    out.sub_scales[j] = pair.scale;
    out.sub_minimums[j] = pair.minimum;
    const int shift = j % 2 * 4;
    std::uint8_t codes[32];  // a local array: the loop runs in vectors
    for (int l = 0; l < 32; ++l) {
      codes[l] = static_cast<std::uint8_t>((block.quants[32 * (j / 2) + l] >> shift) & 15);
    }
    std::memcpy(out.codes + 32 * j, codes, sizeof(codes));
  }
}

void split_q2_k(const quant::BlockQ2_K& block, RowBlock& out) {
  out.scale = block.scale;
  out.minimum = block.minimum;
  std::fill_n(out.codes, kSuper, std::uint8_t{0});
  add_two_bits(block.quants, 0, out);
  for (int j = 0; j < 16; ++j) {
    out.sub_scales[j] = block.scales[j] & 15;
    out.sub_minimums[j] = static_cast<std::uint8_t>(block.scales[j] >> 4);
  }
}

void split_q3_k(const quant::BlockQ3_K& block, RowBlock& out) {
  out.scale = block.scale;
  std::fill_n(out.codes, kSuper, std::uint8_t{0});
  add_two_bits(block.quants, 0, out);
  for (int i = 0; i < kSuper; ++i) {
    const int high = (block.mask[i % 32] >> (i / 32)) & 1;
    out.codes[i] = static_cast<std::uint8_t>(out.codes[i] | (high << 2));
  }
  for (int j = 0; j < 16; ++j) {
    const int low = j < 8 ? block.scales[j] & 15 : block.scales[j - 8] >> 4;
    const int high = (block.scales[8 + j % 4] >> (2 * (j / 4))) & 3;
    out.sub_scales[j] = static_cast<std::uint8_t>((low | (high << 4)) - 32);
  }
}

void split_q6_k(const quant::BlockQ6_K& block, RowBlock& out) {
  out.scale = block.scale;
  for (int half = 0; half < 2; ++half) {
    std::uint8_t codes[128];
    for (int l = 0; l < 64; ++l) {
      codes[l] = block.low[64 * half + l] & 15;
      codes[l + 64] = static_cast<std::uint8_t>(block.low[64 * half + l] >> 4);
    }
    std::memcpy(out.codes + 128 * half, codes, sizeof(codes));
  }
  add_two_bits(block.high, 4, out);
  for (int j = 0; j < 16; ++j) out.sub_scales[j] = static_cast<std::uint8_t>(block.scales[j]);
}

// Inlined into a loop over rows of one type: the switch is decided there once.
inline void split_block(DType dtype, const std::byte* from, RowBlock& out) {
  switch (dtype) {
    case DType::kQ4_0: {
      const auto block = read_block<quant::BlockQ4_0>(from);
      out.scale = block.scale;
      return split_low(block, out);
    }
    case DType::kIQ4_NL: {
      const auto block = read_block<quant::BlockIQ4_NL>(from);
      out.scale = block.scale;
      return split_low(block, out);
    }
    case DType::kQ4_1: {
      const auto block = read_block<quant::BlockQ4_1>(from);
      out.scale = block.scale;
      out.minimum = block.minimum;
      return split_low(block, out);
    }
    case DType::kQ5_0: {
      const auto block = read_block<quant::BlockQ5_0>(from);
      out.scale = block.scale;
      return split_five(block, out);
    }
    case DType::kQ5_1: {
      const auto block = read_block<quant::BlockQ5_1>(from);
      out.scale = block.scale;
      out.minimum = block.minimum;
      return split_five(block, out);
    }
    case DType::kQ8_0: {
      const auto block = read_block<quant::BlockQ8_0>(from);
      out.scale = block.scale;
      for (int i = 0; i < 32; ++i) {
        out.codes[i] = static_cast<std::uint8_t>(block.quants[i] + 128);
      }
      return;
    }
    case DType::kQ2_K: return split_q2_k(read_block<quant::BlockQ2_K>(from), out);
    case DType::kQ3_K: return split_q3_k(read_block<quant::BlockQ3_K>(from), out);
    case DType::kQ4_K: return split_four_k(read_block<quant::BlockQ4_K>(from), out);
    case DType::kQ5_K: {
      const auto block = read_block<quant::BlockQ5_K>(from);
      split_four_k(block, out);
      for (int i = 0; i < kSuper; ++i) {
        const int high = (block.high[i % 32] >> (i / 32)) & 1;
        out.codes[i] = static_cast<std::uint8_t>(out.codes[i] | (high << 4));
      }
      return;
    }
    case DType::kQ6_K: return split_q6_k(read_block<quant::BlockQ6_K>(from), out);
    default: return;
  }
}

// Where in a unit's lines a quad's bits [first_bit, first_bit + bits) are.
struct Plane {
  int first_line;
  int bits;        // of a code
  int code_shift;  // which of its bits
};

struct Planes {
  Plane plane[2];
  int count;
};

constexpr Planes planes_of(CodeKind codes) {
  switch (codes) {
    case CodeKind::kU2: return {{{0, 2, 0}, {}}, 1};
    case CodeKind::kU3: return {{{0, 2, 0}, {2, 1, 2}}, 2};
    case CodeKind::kU5: return {{{0, 4, 0}, {4, 1, 4}}, 2};
    case CodeKind::kU6: return {{{0, 4, 0}, {4, 2, 4}}, 2};
    case CodeKind::kU8: return {{{0, 8, 0}, {}}, 1};
    default: return {{{0, 4, 0}, {}}, 1};
  }
}

// Puts 32 codes of row `row` of the panel into a unit: four codes a word, all four at once.
template <CodeKind kKind>
inline void put_codes(const std::uint8_t* codes, int row, std::byte* unit) {
  constexpr Planes planes = planes_of(kKind);
  for (int i = 0; i < planes.count; ++i) {
    const Plane plane = planes.plane[i];
    const int quads_of_line = 8 / plane.bits;
    const std::uint32_t mask = ((1u << plane.bits) - 1u) * 0x01010101u;
    for (int line = 0; line < plane.bits; ++line) {
      std::uint32_t word = 0;
      for (int quad = 0; quad < quads_of_line; ++quad) {
        std::uint32_t four;
        std::memcpy(&four, codes + 4 * (line * quads_of_line + quad), sizeof(four));
        word |= ((four >> plane.code_shift) & mask) << (quad * plane.bits);
      }
      std::memcpy(unit + (plane.first_line + line) * kLineBytes + 4 * row, &word, sizeof(word));
    }
  }
}

void get_codes(CodeKind kind, const std::byte* unit, int row, std::uint8_t* codes) {
  const Planes planes = planes_of(kind);
  std::fill_n(codes, kUnit, std::uint8_t{0});
  for (int i = 0; i < planes.count; ++i) {
    const Plane plane = planes.plane[i];
    const int quads_of_line = 8 / plane.bits;
    const int mask = (1 << plane.bits) - 1;
    for (int quad = 0; quad < 8; ++quad) {
      const std::byte* line =
          unit + (plane.first_line + quad / quads_of_line) * kLineBytes + 4 * row;
      const int shift = quad % quads_of_line * plane.bits;
      for (int c = 0; c < 4; ++c) {
        const int part = (std::to_integer<int>(line[c]) >> shift) & mask;
        std::uint8_t& code = codes[4 * quad + c];
        code = static_cast<std::uint8_t>(code | (part << plane.code_shift));
      }
    }
  }
}

void put_half(std::uint16_t half, std::byte* to) { std::memcpy(to, &half, sizeof(half)); }

float get_half(const std::byte* from) {
  std::uint16_t half;
  std::memcpy(&half, from, sizeof(half));
  return f16_to_f32(half);
}

int scale_planes(const PackedLayout& layout) { return layout.minimum ? 2 : 1; }

// The scales of super-block (or block) `index` in a panel.
std::int64_t scale_stride(const PackedLayout& layout) {
  const std::int64_t blocks_of_super = kSuper / layout.block_columns;
  return scale_planes(layout) *
         (layout.scales == ScaleKind::kSuper ? 32 + 16 * blocks_of_super : 32);
}

void put_scales(const PackedLayout& layout, const RowBlock& block, int row, std::byte* to) {
  put_half(block.scale, to + 2 * row);
  if (layout.minimum) put_half(block.minimum, to + 32 + 2 * row);
  if (layout.scales != ScaleKind::kSuper) return;
  const int planes = scale_planes(layout);
  for (int j = 0; j < kSuper / layout.block_columns; ++j) {
    std::byte* at = to + planes * (32 + 16 * j) + row;
    at[0] = static_cast<std::byte>(block.sub_scales[j]);
    if (layout.minimum) at[16] = static_cast<std::byte>(block.sub_minimums[j]);
  }
}

// One copy for each type, so that its bit positions are constants.
template <DType kType, CodeKind kCodes>
void pack_panel_of(const PackedLayout& layout, const std::byte* source, std::int64_t panel,
                   std::byte* out) {
  const DTypeInfo& info = dtype_info(layout.dtype);
  const std::int64_t blocks = layout.columns / info.block;
  const std::int64_t units = info.block / kUnit;
  constexpr std::int64_t unit_bytes = lines_of_unit(kCodes) * kLineBytes;
  const std::int64_t stride = scale_stride(layout);
  const std::int64_t first_row = panel * kPanelRows;
  const int rows = static_cast<int>(std::min(kPanelRows, layout.rows - first_row));
  if (rows < kPanelRows) std::memset(out, 0, static_cast<std::size_t>(layout.panel_bytes));
  RowBlock row_block{};
  for (std::int64_t block = 0; block < blocks; ++block) {
    for (int row = 0; row < rows; ++row) {
      split_block(kType, source + ((first_row + row) * blocks + block) * info.bytes, row_block);
      put_scales(layout, row_block, row, out + block * stride);
      std::byte* codes = out + layout.scale_bytes + block * units * unit_bytes;
      for (std::int64_t unit = 0; unit < units; ++unit) {
        put_codes<kCodes>(row_block.codes + unit * kUnit, row, codes + unit * unit_bytes);
      }
    }
  }
}

void pack_quantized_panel(const PackedLayout& layout, const std::byte* source, std::int64_t panel,
                          std::byte* out) {
  switch (layout.dtype) {
    case DType::kQ4_0:
      return pack_panel_of<DType::kQ4_0, CodeKind::kU4>(layout, source, panel, out);
    case DType::kQ4_1:
      return pack_panel_of<DType::kQ4_1, CodeKind::kU4>(layout, source, panel, out);
    case DType::kQ5_0:
      return pack_panel_of<DType::kQ5_0, CodeKind::kU5>(layout, source, panel, out);
    case DType::kQ5_1:
      return pack_panel_of<DType::kQ5_1, CodeKind::kU5>(layout, source, panel, out);
    case DType::kQ8_0:
      return pack_panel_of<DType::kQ8_0, CodeKind::kU8>(layout, source, panel, out);
    case DType::kIQ4_NL:
      return pack_panel_of<DType::kIQ4_NL, CodeKind::kTable4>(layout, source, panel, out);
    case DType::kQ2_K:
      return pack_panel_of<DType::kQ2_K, CodeKind::kU2>(layout, source, panel, out);
    case DType::kQ3_K:
      return pack_panel_of<DType::kQ3_K, CodeKind::kU3>(layout, source, panel, out);
    case DType::kQ4_K:
      return pack_panel_of<DType::kQ4_K, CodeKind::kU4>(layout, source, panel, out);
    case DType::kQ5_K:
      return pack_panel_of<DType::kQ5_K, CodeKind::kU5>(layout, source, panel, out);
    case DType::kQ6_K:
      return pack_panel_of<DType::kQ6_K, CodeKind::kU6>(layout, source, panel, out);
    default: return;
  }
}

// Byte offset of a plain number in its panel.
std::int64_t plain_offset(const PackedLayout& layout, int row, std::int64_t column) {
  if (layout.codes == CodeKind::kBF16) {
    return ((column / 2 * kPanelRows + row) * 2 + column % 2) * 2;
  }
  return (column * kPanelRows + row) * element_bytes(layout.codes);
}

void pack_plain_panel(const PackedLayout& layout, const std::byte* source, std::int64_t panel,
                      std::byte* out) {
  const std::int64_t bytes = element_bytes(layout.codes);
  std::memset(out, 0, static_cast<std::size_t>(layout.panel_bytes));
  const std::int64_t first_row = panel * kPanelRows;
  const int rows = static_cast<int>(std::min(kPanelRows, layout.rows - first_row));
  for (int row = 0; row < rows; ++row) {
    const std::byte* from = source + (first_row + row) * layout.columns * bytes;
    for (std::int64_t column = 0; column < layout.columns; ++column) {
      std::memcpy(out + plain_offset(layout, row, column), from + column * bytes,
                  static_cast<std::size_t>(bytes));
    }
  }
}

void unpack_quantized_row(const PackedLayout& layout, const std::byte* panel, int row,
                          std::span<float> out) {
  const std::int64_t unit_bytes = lines_of_unit(layout.codes) * kLineBytes;
  const std::int64_t stride = scale_stride(layout);
  const std::int64_t blocks_of_stride =
      layout.scales == ScaleKind::kSuper ? kSuper / layout.block_columns : 1;
  const int planes = scale_planes(layout);
  std::uint8_t codes[kUnit];
  for (std::int64_t column = 0; column < layout.columns; ++column) {
    const std::int64_t in_unit = column % kUnit;
    if (in_unit == 0) {
      get_codes(layout.codes, panel + layout.scale_bytes + column / kUnit * unit_bytes, row, codes);
    }
    const std::int64_t block = column / layout.block_columns;
    const std::byte* scales = panel + block / blocks_of_stride * stride;
    float scale = get_half(scales + 2 * row);
    float minimum = layout.minimum ? get_half(scales + 32 + 2 * row) : 0.0F;
    if (layout.scales == ScaleKind::kSuper) {
      const std::byte* sub = scales + planes * (32 + 16 * (block % blocks_of_stride)) + row;
      const int factor = std::to_integer<int>(sub[0]);
      scale *= static_cast<float>(layout.minimum ? factor : static_cast<std::int8_t>(factor));
      if (layout.minimum) minimum = -(minimum * static_cast<float>(std::to_integer<int>(sub[16])));
    }
    const int stored = codes[in_unit];
    const int code = layout.codes == CodeKind::kTable4 ? kTable4Codes[stored] : stored;
    const float product = scale * static_cast<float>(code - layout.zero_point);
    out[static_cast<std::size_t>(column)] = layout.minimum ? product + minimum : product;
  }
}

}  // namespace

std::optional<PackedLayout> packed_layout(DType dtype, std::int64_t rows, std::int64_t columns) {
  const Kind* kind = std::find_if(std::begin(kKinds), std::end(kKinds),
                                  [&](const Kind& each) { return each.dtype == dtype; });
  if (kind == std::end(kKinds) || rows <= 0 || columns <= 0 || rows > kMostRows ||
      columns > kMostColumns || columns % dtype_info(dtype).block != 0) {
    return std::nullopt;
  }
  PackedLayout layout{.dtype = dtype,
                      .codes = kind->codes,
                      .scales = kind->scales,
                      .minimum = kind->minimum,
                      .block_columns = kind->block_columns,
                      .zero_point = kind->zero_point,
                      .rows = rows,
                      .columns = columns};
  if (kind->scales == ScaleKind::kNone) {
    const std::int64_t stored = kind->codes == CodeKind::kBF16 ? (columns + 1) / 2 * 2 : columns;
    layout.panel_bytes = stored * kPanelRows * element_bytes(kind->codes);
  } else {
    const std::int64_t strides =
        columns / (kind->scales == ScaleKind::kSuper ? kSuper : kind->block_columns);
    layout.scale_bytes = strides * scale_stride(layout);
    layout.panel_bytes =
        layout.scale_bytes + columns / kUnit * lines_of_unit(kind->codes) * kLineBytes;
  }
  layout.total_bytes = layout.panels() * layout.panel_bytes;
  return layout;
}

void pack_panels(const PackedLayout& layout, std::span<const std::byte> source,
                 std::int64_t first_panel, std::int64_t panel_count, std::span<std::byte> out) {
  for (std::int64_t panel = first_panel; panel < first_panel + panel_count; ++panel) {
    std::byte* to = out.data() + panel * layout.panel_bytes;
    if (layout.scales == ScaleKind::kNone) {
      pack_plain_panel(layout, source.data(), panel, to);
    } else {
      pack_quantized_panel(layout, source.data(), panel, to);
    }
  }
}

void unpack_row(const PackedLayout& layout, std::span<const std::byte> packed, std::int64_t row,
                std::span<float> out) {
  const std::byte* panel = packed.data() + row / kPanelRows * layout.panel_bytes;
  const int in_panel = static_cast<int>(row % kPanelRows);
  if (layout.scales != ScaleKind::kNone) return unpack_quantized_row(layout, panel, in_panel, out);
  for (std::int64_t column = 0; column < layout.columns; ++column) {
    const std::byte* from = panel + plain_offset(layout, in_panel, column);
    float value = 0.0F;
    if (layout.codes == CodeKind::kF32) {
      std::memcpy(&value, from, sizeof(value));
    } else {
      std::uint16_t bits;
      std::memcpy(&bits, from, sizeof(bits));
      value = layout.codes == CodeKind::kF16 ? f16_to_f32(bits) : bf16_to_f32(bits);
    }
    out[static_cast<std::size_t>(column)] = value;
  }
}

}  // namespace hone::kernels

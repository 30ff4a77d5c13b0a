// Block-quantized weights times 8-bit activations: integer dot products, one float step a block.
// SPDX-License-Identifier: Apache-2.0
//
// One output element, in every tile and on every instruction set, for its blocks in order:
//   g = round(scale * dot), sum = fma(g, activation scale, sum), sum = fma(minimum, block sum, sum)
// with dot exact. So the bits do not depend on how the work is cut.
#include "kernels/matmul_finish.h"
#include "kernels/matmul_panel.h"

namespace hone::kernels::HONE_ISA_NAMESPACE {
namespace {

// What one thread keeps on its stack, about 320 KB.
inline constexpr int kGroupTokens = 96;             // tokens that share an unpacked panel
inline constexpr int kChunkUnits = 32;              // columns / 32 that are unpacked at a time
inline constexpr std::int64_t kTermFloats = 49152;  // 3 a (token, block)
inline constexpr std::int64_t kPrefetchBytes = 2048;

// (blocks, 3, M) of a tile of M tokens: activation scale, activation sum, and the i32 that the
// integer dot product starts from (kOffsetBits - zero_point * sum of codes).
struct Terms {
  float values[kTermFloats];
};

HONE_INLINE std::int64_t blocks_of(const PackedLayout& layout) {
  return layout.columns / layout.block_columns;
}

inline void fill_terms(const PackedLayout& layout, const Int8Rows& input, std::int64_t first_token,
                       int tokens, float* terms) {
  const std::int64_t units = layout.columns / kUnitColumns;
  const int parts = kUnitColumns / layout.block_columns;
  for (int token = 0; token < tokens; ++token) {
    const float* scales = input.scales + (first_token + token) * units;
    const float* sums = input.sums + (first_token + token) * units;
    const std::int8_t* codes = input.codes + (first_token + token) * layout.columns;
    for (std::int64_t unit = 0; unit < units; ++unit) {
      for (int part = 0; part < parts; ++part) {
        float* to = terms + (unit * parts + part) * 3 * tokens + token;
        std::int32_t code_sum = 0;
        float sum = sums[unit];
        if (parts == 1) {
          // The quotient is the integer up to a few 2^-24 of it; kOffset rounds it.
          const float quotient = sum / (scales[unit] == 0.0F ? 1.0F : scales[unit]);
          code_sum = std::bit_cast<std::int32_t>(quotient + kOffset) - kOffsetBits;
        } else {
          const std::int8_t* from = codes + unit * kUnitColumns + part * layout.block_columns;
          for (int i = 0; i < 16; ++i) code_sum += from[i];
          sum = scales[unit] * static_cast<float>(code_sum);
        }
        to[0] = scales[unit];
        to[tokens] = sum;
        to[2 * tokens] = std::bit_cast<float>(kOffsetBits - layout.zero_point * code_sum);
      }
    }
  }
}

// The float step of one block for one token.
template <bool kMinimum>
HONE_INLINE Floats add_block(Floats sum, Floats dot, const BlockScales& scales, const float* terms,
                             int tokens) {
  const Floats scaled = fms(dot, scales.scale, scales.offset);
  sum = fma(scaled, splat(terms[0]), sum);
  if constexpr (kMinimum) sum = fma(scales.minimum, splat(terms[tokens]), sum);
  return sum;
}

// Few tokens: one panel, unpacked in registers as it streams from memory. out: (kTokens, 16).
template <typename F, int kTokens>
__attribute__((noinline)) void direct_panel(PanelBytes panel, std::int64_t panel_bytes,
                                            std::int64_t columns, const std::int8_t* activations,
                                            const float* terms, float* out) {
  using BlockDots = Dots<dot_bits(F::kCodeBits), F::kQuads>;
  const std::int64_t units = columns / kUnitColumns;
  const std::int64_t step = panel_bytes / units;  // of the prefetch
  Floats sums[kTokens];
  HONE_UNROLL for (int n = 0; n < kTokens; ++n) sums[n] = splat(0.0F);
  const std::byte* codes = panel.codes;
  const std::byte* ahead = panel.scales + kPrefetchBytes;
  for (std::int64_t unit = 0; unit < units; ++unit) {
    HONE_UNROLL for (int line = 0; line <= F::kLines; ++line) prefetch(ahead + line * kLineBytes);
    each_index<F::kBlocks>([&]<int kBlock>() HONE_LAMBDA {
      BlockDots dots[kTokens];
      HONE_UNROLL for (int n = 0; n < kTokens; ++n) {
        dots[n].begin(load_word(terms + 2 * kTokens + n));
      }
      each_index<F::kQuads>([&]<int kQuad>() HONE_LAMBDA {
        constexpr int kOfUnit = kBlock * F::kQuads + kQuad;
        const Codes weights = F::template quad<kOfUnit>(codes);
        HONE_UNROLL for (int n = 0; n < kTokens; ++n) {
          const Quad x = splat_quad(activations + n * columns + 4 * kOfUnit);
          dots[n].template add_quad<kQuad>(weights, x);
        }
      });
      const BlockScales scales = F::block_scales(panel.scales, unit * F::kBlocks + kBlock);
      HONE_UNROLL for (int n = 0; n < kTokens; ++n) {
        sums[n] =
            add_block<F::kMinimum>(sums[n], dots[n].bits_as_floats(), scales, terms + n, kTokens);
      }
      terms += 3 * kTokens;
    });
    codes += F::kLines * kLineBytes;
    activations += kUnitColumns;
    ahead += step;
  }
  HONE_UNROLL for (int n = 0; n < kTokens; ++n) store_floats(sums[n], out + n * kPanelRows);
}

// Many tokens: panels are unpacked once, some columns at a time, into the first-level cache.
struct Unpacked {
  alignas(64) std::byte codes[kTilePanels][kChunkUnits][kUnitQuads][kLineBytes];
  // (blocks, 3, 16): scale, offset, minimum
  alignas(64) float scales[kTilePanels][2 * kChunkUnits][3][kPanelRows];
};

template <typename F>
__attribute__((noinline)) void unpack_units(PanelBytes panel, std::int64_t first_unit, int units,
                                            int slot, Unpacked& out) {
  const std::byte* codes = panel.codes + first_unit * F::kLines * kLineBytes;
  for (int unit = 0; unit < units; ++unit) {
    each_index<kUnitQuads>([&]<int kQuad>() HONE_LAMBDA {
      store_codes(F::template quad<kQuad>(codes), out.codes[slot][unit][kQuad]);
    });
    HONE_UNROLL for (int block = 0; block < F::kBlocks; ++block) {
      const BlockScales scales =
          F::block_scales(panel.scales, (first_unit + unit) * F::kBlocks + block);
      auto& to = out.scales[slot][unit * F::kBlocks + block];
      store_floats(scales.scale, to[0]);
      store_floats(scales.offset, to[1]);
      if constexpr (F::kMinimum) store_floats(scales.minimum, to[2]);
    }
    codes += F::kLines * kLineBytes;
  }
}

// kPanels unpacked panels times kTokens tokens over one chunk of columns. sums: panel p at
// p * panel_stride, (kTokens, 16); continued from what they hold.
template <int kCodeBits, bool kMinimum, int kBlocks, int kPanels, int kTokens>
__attribute__((noinline)) void chunk_tile(const Unpacked& weights, int first_slot, int units,
                                          std::int64_t columns, const std::int8_t* activations,
                                          const float* terms, float* sums_out,
                                          std::int64_t panel_stride) {
  constexpr int kQuads = kUnitQuads / kBlocks;
  using BlockDots = Dots<kCodeBits, kQuads>;
  Floats sums[kPanels][kTokens];
  HONE_UNROLL for (int p = 0; p < kPanels; ++p) {
    HONE_UNROLL for (int n = 0; n < kTokens; ++n) {
      sums[p][n] = load_floats(sums_out + p * panel_stride + n * kPanelRows);
    }
  }
  const std::byte* codes = weights.codes[first_slot][0][0];
  const float* scales = weights.scales[first_slot][0][0];
  constexpr std::int64_t kCodesOfPanel = sizeof(weights.codes[0]);
  constexpr std::int64_t kScalesOfPanel = sizeof(weights.scales[0]) / sizeof(float);
  for (int block = 0; block < units * kBlocks; ++block) {
    BlockDots dots[kPanels][kTokens];
    HONE_UNROLL for (int n = 0; n < kTokens; ++n) {
      HONE_UNROLL for (int p = 0; p < kPanels; ++p) {
        dots[p][n].begin(load_word(terms + 2 * kTokens + n));
      }
    }
    each_index<kQuads>([&]<int kQuad>() HONE_LAMBDA {
      Codes quads[kPanels];
      HONE_UNROLL for (int p = 0; p < kPanels; ++p) {
        quads[p] = load_codes(codes + p * kCodesOfPanel + kQuad * kLineBytes);
      }
      HONE_UNROLL for (int n = 0; n < kTokens; ++n) {
        const Quad x = splat_quad(activations + n * columns + kQuad * 4);
        HONE_UNROLL for (int p = 0; p < kPanels; ++p) {
          dots[p][n].template add_quad<kQuad>(quads[p], x);
        }
      }
    });
    HONE_UNROLL for (int p = 0; p < kPanels; ++p) {
      const float* at = scales + p * kScalesOfPanel;
      BlockScales block_scales = {load_floats(at), load_floats(at + kPanelRows), {}};
      if constexpr (kMinimum) block_scales.minimum = load_floats(at + 2 * kPanelRows);
      HONE_UNROLL for (int n = 0; n < kTokens; ++n) {
        sums[p][n] = add_block<kMinimum>(sums[p][n], dots[p][n].bits_as_floats(), block_scales,
                                         terms + n, kTokens);
      }
    }
    codes += kQuads * kLineBytes;
    scales += 3 * kPanelRows;
    activations += kQuads * 4;
    terms += 3 * kTokens;
  }
  HONE_UNROLL for (int p = 0; p < kPanels; ++p) {
    HONE_UNROLL for (int n = 0; n < kTokens; ++n) {
      store_floats(sums[p][n], sums_out + p * panel_stride + n * kPanelRows);
    }
  }
}

// Calls visit.template operator()<i>() for i = count, which is in [1, kMost].
template <int kMost, typename Visit>
HONE_INLINE void visit_count(int count, Visit visit) {
  if constexpr (kMost > 1) {
    if (count < kMost) return visit_count<kMost - 1>(count, visit);
  }
  visit.template operator()<kMost>();
}

// The two panels that go together: neighbours of one tensor, or the same of gate and up.
struct PanelPair {
  PanelBytes panels[2];
  int count;
};

// Tokens [begin, end) of tile `tile` of `tiles` nearly equal ones.
HONE_INLINE int tile_begin(int tokens, int tile, int tiles) { return tokens * tile / tiles; }

template <typename F>
void direct_sums(const MatmulTask& task, const PanelPair& pair, std::int64_t first_token,
                 int tokens, const float* terms, float* sums) {
  const std::int8_t* activations = task.int8.codes + first_token * task.layout.columns;
  for (int i = 0; i < pair.count; ++i) {
    visit_count<kDirectTokens>(tokens, [&]<int kTokens>() {
      direct_panel<F, kTokens>(pair.panels[i], task.layout.panel_bytes, task.layout.columns,
                               activations, terms, sums + i * kGroupTokens * kPanelRows);
    });
  }
}

template <typename F>
void batched_sums(const MatmulTask& task, const PanelPair& pair, std::int64_t first_token,
                  int tokens, int tiles, const float* terms, Unpacked& unpacked, float* sums) {
  constexpr std::int64_t kPanelStride = std::int64_t{kGroupTokens} * kPanelRows;
  const std::int64_t columns = task.layout.columns;
  const std::int64_t units = columns / kUnitColumns;
  const std::int64_t chunks = (units + kChunkUnits - 1) / kChunkUnits;
  for (std::int64_t i = 0; i < pair.count * kPanelStride; ++i) sums[i] = 0.0F;
  for (int first = 0; first < pair.count; first += kTilePanels) {
    const int panels = pair.count - first < kTilePanels ? pair.count - first : kTilePanels;
    for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
      const std::int64_t unit = units * chunk / chunks;
      const int chunk_units = static_cast<int>(units * (chunk + 1) / chunks - unit);
      for (int p = 0; p < panels; ++p) {
        unpack_units<F>(pair.panels[first + p], unit, chunk_units, p, unpacked);
      }
      for (int tile = 0; tile < tiles; ++tile) {
        const int begin = tile_begin(tokens, tile, tiles);
        const int count = tile_begin(tokens, tile + 1, tiles) - begin;
        const float* tile_terms = terms + 3 * (begin * units + unit * count) * F::kBlocks;
        const std::int8_t* activations =
            task.int8.codes + (first_token + begin) * columns + unit * kUnitColumns;
        float* to = sums + first * kPanelStride + begin * kPanelRows;
        visit_count<kTilePanels>(panels, [&]<int kPanels>() {
          visit_count<kTileTokens>(count, [&]<int kTokens>() {
            chunk_tile<dot_bits(F::kCodeBits), F::kMinimum, F::kBlocks, kPanels, kTokens>(
                unpacked, 0, chunk_units, columns, activations, tile_terms, to, kPanelStride);
          });
        });
      }
    }
  }
}

template <typename F>
void int8_panels(const MatmulTask& task, const MatmulTask* up, Activation activation) {
  alignas(64) Terms terms;
  alignas(64) float sums[2 * kGroupTokens * kPanelRows];
  const std::int64_t blocks = blocks_of(task.layout);
  const int fit = static_cast<int>(
      kTermFloats / 3 / blocks < kGroupTokens ? kTermFloats / 3 / blocks : kGroupTokens);
  const bool direct = task.tokens <= kDirectTokens;
  const int most = direct && fit > kDirectTokens ? kDirectTokens : fit;
  const int groups = (task.tokens + most - 1) / most;
  const std::byte* weights = task.weights.data();
  for (int group = 0; group < groups; ++group) {
    const int first = tile_begin(task.tokens, group, groups);
    const int tokens = tile_begin(task.tokens, group + 1, groups) - first;
    const int tiles = direct ? 1 : (tokens + kTileTokens - 1) / kTileTokens;
    for (int tile = 0; tile < tiles; ++tile) {
      const int begin = tile_begin(tokens, tile, tiles);
      fill_terms(task.layout, task.int8, first + begin, tile_begin(tokens, tile + 1, tiles) - begin,
                 terms.values + 3 * begin * blocks);
    }
    const std::int64_t step = up == nullptr ? 2 : 1;
    for (std::int64_t i = 0; i < task.panel_count; i += step) {
      const std::int64_t panel = task.first_panel + i;
      PanelPair pair = {{panel_bytes(task.layout, weights, panel), {}}, 1};
      if (up != nullptr) {
        pair.panels[pair.count++] = panel_bytes(up->layout, up->weights.data(), panel);
      } else if (i + 1 < task.panel_count) {
        pair.panels[pair.count++] = panel_bytes(task.layout, weights, panel + 1);
      }
      float* second = sums + kGroupTokens * kPanelRows;
      if (direct) {
        direct_sums<F>(task, pair, first, tokens, terms.values, sums);
      } else {
        Unpacked unpacked;
        batched_sums<F>(task, pair, first, tokens, tiles, terms.values, unpacked, sums);
      }
      if (up != nullptr) {
        finish_gated_panel(task, *up, activation, panel, first, tokens, sums, second);
      } else {
        finish_panel(task, panel, first, tokens, sums);
        if (pair.count == 2) finish_panel(task, panel + 1, first, tokens, second);
      }
    }
  }
}

}  // namespace

void int8_matmul(const MatmulTask& task) {
  visit_format(task.layout,
               [&]<typename F>(F) { int8_panels<F>(task, nullptr, Activation::kSilu); });
}

void int8_matmul_gated(const MatmulTask& gate, const MatmulTask& up, Activation activation) {
  visit_format(gate.layout, [&]<typename F>(F) { int8_panels<F>(gate, &up, activation); });
}

}  // namespace hone::kernels::HONE_ISA_NAMESPACE

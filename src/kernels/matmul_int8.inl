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
inline constexpr int kGroupTokens = kGroupTiles * kTileTokens;  // that share an unpacked panel
inline constexpr int kChunkUnits = 32;              // columns / 32 that are unpacked at a time
inline constexpr std::int64_t kTermFloats = 49152;  // 3 a (token, block)
inline constexpr std::int64_t kPanelStride = kGroupTokens * kPanelRows;  // of sums

// (blocks, 3, M) of a tile of M tokens: activation scale, activation sum, and the i32 that the
// integer dot product starts from (kOffsetBits - zero_point * sum of codes).
struct Terms {
  float values[kTermFloats];
};

HONE_INLINE std::int64_t blocks_of(const PackedLayout& layout) {
  return layout.columns / layout.block_columns;
}

// Of 32-column blocks: their code sums come back from sum / scale, sixteen blocks at a time.
inline void fill_block_terms(const float* scales, const float* sums, std::int64_t blocks,
                             int zero_point, int tokens, float* terms) {
  alignas(64) float starts[kPanelRows];
  for (std::int64_t first = 0; first < blocks; first += kPanelRows) {
    const int count = static_cast<int>(blocks - first < kPanelRows ? blocks - first : kPanelRows);
    const bool full = count == kPanelRows;
    const Floats scale = full ? load_floats(scales + first) : load_some(scales + first, count);
    const Floats sum = full ? load_floats(sums + first) : load_some(sums + first, count);
    // The quotient is within a few 2^-24 of the integer; kOffset rounds it. Both are 0 if scale is.
    const Floats quotient = divide(sum, maximum(scale, splat(0x1p-126F)));
    const Floats code_sum = subtract(add(quotient, splat(kOffset)), splat(kOffset));
    const auto zero = static_cast<float>(zero_point);
    store_floats(fma(code_sum, splat(-zero), splat(kOffset)), starts);
    for (int i = 0; i < count; ++i) {
      terms[0] = scales[first + i];
      terms[tokens] = sums[first + i];
      terms[2 * tokens] = starts[i];
      terms += 3 * tokens;
    }
  }
}

// Of 16-column blocks, two a unit.
inline void fill_half_terms(const float* scales, const std::int8_t* codes, std::int64_t blocks,
                            int zero_point, int tokens, float* terms) {
  for (std::int64_t block = 0; block < blocks; ++block) {
    std::int32_t code_sum = 0;
    for (int i = 0; i < 16; ++i) code_sum += codes[16 * block + i];
    const float scale = scales[block / 2];
    terms[0] = scale;
    terms[tokens] = scale * static_cast<float>(code_sum);
    terms[2 * tokens] = std::bit_cast<float>(kOffsetBits - zero_point * code_sum);
    terms += 3 * tokens;
  }
}

inline void fill_terms(const PackedLayout& layout, const Int8Rows& input, std::int64_t first_token,
                       int tokens, float* terms) {
  const std::int64_t units = layout.columns / kUnitColumns;
  for (int token = 0; token < tokens; ++token) {
    const float* scales = input.scales + (first_token + token) * units;
    if (layout.block_columns == kUnitColumns) {
      const float* sums = input.sums + (first_token + token) * units;
      fill_block_terms(scales, sums, units, layout.zero_point, tokens, terms + token);
    } else {
      const std::int8_t* codes = input.codes + (first_token + token) * layout.columns;
      fill_half_terms(scales, codes, 2 * units, layout.zero_point, tokens, terms + token);
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

// Some columns of panels, unpacked, for the other tiles of tokens: 56 KB at most, most of it in the
// first-level cache.
struct Unpacked {
  alignas(64) std::byte codes[kTilePanels][kChunkUnits][kUnitQuads][kLineBytes];
  // (blocks, 3, 16): scale, offset, minimum
  alignas(64) float scales[kTilePanels][2 * kChunkUnits][3][kPanelRows];
};

template <typename F>
HONE_INLINE void keep_scales(const BlockScales& block, float (&to)[3][kPanelRows]) {
  store_floats(block.scale, to[0]);
  store_floats(block.offset, to[1]);
  if constexpr (F::kMinimum) store_floats(block.minimum, to[2]);
}

// Where a tile stores: the sums, or the task's output if nothing is left to do.
struct Target {
  float* at;
  std::int64_t panel_stride;
  std::int64_t token_stride;
};

// Some bytes of panels, asked for while a tile works on others: `bytes` a unit, first those that
// lie `ahead` of the panel's beginning.
struct Prefetch {
  std::int64_t ahead;
  std::int64_t bytes;
};

// All that a panel has, by a group's tiles in turn. The first tile needs a whole panel in the time
// in which it asks for its part, so the others' parts lie ahead of it.
HONE_INLINE Prefetch prefetch_of(const PackedLayout& layout, std::int64_t first_unit, int tile,
                                 int tiles) {
  const std::int64_t bytes = layout.panel_bytes * kUnitColumns / layout.columns / tiles;
  const std::int64_t others = layout.panel_bytes * (tiles - 1 + tile) / tiles;
  return {kPrefetchBytes + others + first_unit * bytes, bytes};
}

// kPanels panels, unpacked in registers as they stream from memory, times kTokens tokens, over the
// units [first_unit, first_unit + units). sums: panel p at p * kPanelStride, (kTokens, 16); begun
// at the first unit, else continued. kKeep: `kept` receives the unpacked codes and scales.
template <typename F, int kPanels, int kTokens, bool kKeep>
__attribute__((noinline)) void direct_tile(const PanelBytes* panels, const MatmulTask& task,
                                           std::int64_t first_unit, int units,
                                           const std::int8_t* activations, const float* terms,
                                           const float* before, const Target& after, Prefetch asked,
                                           Unpacked* kept) {
  using BlockDots = Dots<dot_bits(F::kCodeBits), F::kQuads>;
  const std::int64_t columns = task.layout.columns;
  Floats sums[kPanels][kTokens];
  const std::byte* codes[kPanels];
  const std::byte* scales[kPanels];
  HONE_UNROLL for (int p = 0; p < kPanels; ++p) {
    codes[p] = panels[p].codes + first_unit * F::kLines * kLineBytes;
    scales[p] = panels[p].scales;
    HONE_UNROLL for (int n = 0; n < kTokens; ++n) {
      const float* from = before + p * kPanelStride + n * kPanelRows;
      sums[p][n] = first_unit == 0 ? splat(0.0F) : load_floats(from);
    }
  }
  for (int unit = 0; unit < units; ++unit) {
    HONE_UNROLL for (int p = 0; p < kPanels; ++p) {
      HONE_UNROLL for (int line = 0; line <= F::kLines; ++line) {
        prefetch(scales[p] + asked.ahead + line * kLineBytes);
      }
    }
    each_index<F::kBlocks>([&]<int kBlock>() HONE_LAMBDA {
      BlockDots dots[kPanels][kTokens];
      HONE_UNROLL for (int n = 0; n < kTokens; ++n) {
        HONE_UNROLL for (int p = 0; p < kPanels; ++p) { dots[p][n].begin(terms + 2 * kTokens + n); }
      }
      each_index<BlockDots::kPasses * F::kQuads>([&]<int kStep>() HONE_LAMBDA {
        constexpr int kPass = kStep / F::kQuads;
        constexpr int kQuad = kStep % F::kQuads;
        constexpr int kOfUnit = kBlock * F::kQuads + kQuad;
        Codes quads[kPanels];
        HONE_UNROLL for (int p = 0; p < kPanels; ++p) {
          quads[p] = F::template quad<kOfUnit>(codes[p]);
          if constexpr (kKeep && kPass == 0) store_codes(quads[p], kept->codes[p][unit][kOfUnit]);
          quads[p] = BlockDots::template part<kPass>(quads[p]);
        }
        HONE_UNROLL for (int n = 0; n < kTokens; ++n) {
          const Quad x = splat_quad(activations + n * columns + 4 * kOfUnit);
          HONE_UNROLL for (int p = 0; p < kPanels; ++p) {
            dots[p][n].template add_quad<kPass, kQuad>(quads[p], x);
          }
        }
      });
      HONE_UNROLL for (int p = 0; p < kPanels; ++p) {
        const std::int64_t index = (first_unit + unit) * F::kBlocks + kBlock;
        const BlockScales block = F::block_scales(scales[p], index);
        if constexpr (kKeep) {
          keep_scales<F>(block, kept->scales[p][unit * F::kBlocks + kBlock]);
        }
        HONE_UNROLL for (int n = 0; n < kTokens; ++n) {
          const Floats dot = dots[p][n].bits_as_floats(terms + 2 * kTokens + n);
          sums[p][n] = add_block<F::kMinimum>(sums[p][n], dot, block, terms + n, kTokens);
        }
      }
      terms += 3 * kTokens;
    });
    HONE_UNROLL for (int p = 0; p < kPanels; ++p) codes[p] += F::kLines * kLineBytes;
    activations += kUnitColumns;
    asked.ahead += asked.bytes;
  }
  HONE_UNROLL for (int p = 0; p < kPanels; ++p) {
    HONE_UNROLL for (int n = 0; n < kTokens; ++n) {
      store_floats(sums[p][n], after.at + p * after.panel_stride + n * after.token_stride);
    }
  }
}

// The units [first_unit, first_unit + units) of kTilePanels panels.
template <typename F, bool kScaled>
__attribute__((noinline)) void unpack_units(const PanelBytes* panels, std::int64_t first_unit,
                                            int units, Prefetch asked, Unpacked& to) {
  for (int p = 0; p < kTilePanels; ++p) {
    const std::byte* codes = panels[p].codes + first_unit * F::kLines * kLineBytes;
    for (int unit = 0; unit < units; ++unit) {
      HONE_UNROLL for (int line = 0; line <= F::kLines; ++line) {
        prefetch(panels[p].scales + asked.ahead + unit * asked.bytes + line * kLineBytes);
      }
      each_index<kUnitQuads>([&]<int kQuad>() HONE_LAMBDA {
        store_codes(F::template quad<kQuad>(codes), to.codes[p][unit][kQuad]);
      });
      for (int block = unit * F::kBlocks; block < (unit + 1) * F::kBlocks; ++block) {
        const std::int64_t index = first_unit * F::kBlocks + block;
        BlockScales scales = F::block_scales(panels[p].scales, index);
        if constexpr (kScaled) {
          scales = times_factor<F>(scales, load_floats(panels[p].factors + index * kPanelRows));
        }
        keep_scales<F>(scales, to.scales[p][block]);
      }
      codes += F::kLines * kLineBytes;
    }
  }
}

// kPanels unpacked panels times kTokens tokens over one chunk of columns. before:
// panel p at p * kPanelStride, (kTokens, 16); not read if `first`.
template <int kCodeBits, bool kMinimum, int kBlocks, int kPanels, int kTokens>
__attribute__((noinline)) void chunk_tile(const Unpacked& weights, int units, std::int64_t columns,
                                          const std::int8_t* activations, const float* terms,
                                          bool first, const float* before, const Target& after) {
  constexpr int kQuads = kUnitQuads / kBlocks;
  using BlockDots = Dots<kCodeBits, kQuads>;
  Floats sums[kPanels][kTokens];
  HONE_UNROLL for (int p = 0; p < kPanels; ++p) {
    HONE_UNROLL for (int n = 0; n < kTokens; ++n) {
      const float* from = before + p * kPanelStride + n * kPanelRows;
      sums[p][n] = first ? splat(0.0F) : load_floats(from);
    }
  }
  const std::byte* codes = weights.codes[0][0][0];
  const float* scales = weights.scales[0][0][0];
  constexpr std::int64_t kCodesOfPanel = sizeof(weights.codes[0]);
  constexpr std::int64_t kScalesOfPanel = sizeof(weights.scales[0]) / sizeof(float);
  for (int block = 0; block < units * kBlocks; ++block) {
    BlockDots dots[kPanels][kTokens];
    HONE_UNROLL for (int n = 0; n < kTokens; ++n) {
      HONE_UNROLL for (int p = 0; p < kPanels; ++p) { dots[p][n].begin(terms + 2 * kTokens + n); }
    }
    each_index<BlockDots::kPasses * kQuads>([&]<int kStep>() HONE_LAMBDA {
      constexpr int kPass = kStep / kQuads;
      constexpr int kQuad = kStep % kQuads;
      Codes quads[kPanels];
      HONE_UNROLL for (int p = 0; p < kPanels; ++p) {
        quads[p] = BlockDots::template part<kPass>(
            load_codes(codes + p * kCodesOfPanel + kQuad * kLineBytes));
      }
      HONE_UNROLL for (int n = 0; n < kTokens; ++n) {
        const Quad x = splat_quad(activations + n * columns + kQuad * 4);
        HONE_UNROLL for (int p = 0; p < kPanels; ++p) {
          dots[p][n].template add_quad<kPass, kQuad>(quads[p], x);
        }
      }
    });
    HONE_UNROLL for (int p = 0; p < kPanels; ++p) {
      const float* at = scales + p * kScalesOfPanel;
      BlockScales block_scales = {load_floats(at), load_floats(at + kPanelRows), {}};
      if constexpr (kMinimum) block_scales.minimum = load_floats(at + 2 * kPanelRows);
      HONE_UNROLL for (int n = 0; n < kTokens; ++n) {
        const Floats dot = dots[p][n].bits_as_floats(terms + 2 * kTokens + n);
        sums[p][n] = add_block<kMinimum>(sums[p][n], dot, block_scales, terms + n, kTokens);
      }
    }
    codes += kQuads * kLineBytes;
    scales += 3 * kPanelRows;
    activations += kQuads * 4;
    terms += 3 * kTokens;
  }
  HONE_UNROLL for (int p = 0; p < kPanels; ++p) {
    HONE_UNROLL for (int n = 0; n < kTokens; ++n) {
      store_floats(sums[p][n], after.at + p * after.panel_stride + n * after.token_stride);
    }
  }
}

// Calls visit.template operator()<count>(), for a count in [kLeast, kMost].
template <int kLeast, int kMost, typename Visit>
HONE_INLINE void visit_count(int count, Visit visit) {
  if constexpr (kMost > kLeast) {
    if (count < kMost) return visit_count<kLeast, kMost - 1>(count, visit);
  }
  visit.template operator()<kMost>();
}

// sums: of one or two neighbouring panels, or of the same panel of gate and up.
inline void finish_tile(const MatmulTask& task, const MatmulTask* up, Activation activation,
                        std::int64_t panel, int count, std::int64_t first_token, int tokens,
                        const float* sums) {
  const float* second = sums + kPanelStride;
  if (up != nullptr) {
    finish_gated_panel(task, *up, activation, panel, first_token, tokens, sums, second);
    return;
  }
  finish_panel(task, panel, first_token, tokens, sums);
  if (count == 2) finish_panel(task, panel + 1, first_token, tokens, second);
}

// Up to kGroupTokens tokens, cut into tiles of nearly equal size.
struct TokenGroup {
  std::int64_t first;
  int tokens;
  int tiles;
  int begin(int tile) const { return tokens * tile / tiles; }
  int count(int tile) const { return begin(tile + 1) - begin(tile); }
};

// A group of few tiles works from the packed weights alone: of two, the second finds the panel in
// the first-level cache. With more, its tiles share what is unpacked once, some columns at a time;
// so do those of a scaled product always, whose factors then cost nothing a token.
template <typename F, bool kScaled>
void tile_sums(const MatmulTask& task, const PanelBytes* panels, const TokenGroup& group, int tile,
               std::int64_t first_unit, int units, const float* terms, Unpacked& unpacked,
               const float* before, const Target& after) {
  constexpr int kMostDirect = kDirectTiles * kTileTokens;
  constexpr int kLeastShared = (kMostDirect + 1) / (kDirectTiles + 1);  // tokens of a tile
  constexpr int kBits = dot_bits(F::kCodeBits);
  const std::int64_t columns = task.layout.columns;
  const int begin = group.begin(tile);
  const int count = group.count(tile);
  const float* tile_terms =
      terms + 3 * F::kBlocks * (begin * (columns / kUnitColumns) + first_unit * count);
  const std::int8_t* activations =
      task.int8.codes + (group.first + begin) * columns + first_unit * kUnitColumns;
  const auto shared = [&]<int kTokens>() {
    chunk_tile<kBits, F::kMinimum, F::kBlocks, kTilePanels, kTokens>(
        unpacked, units, columns, activations, tile_terms, first_unit == 0, before, after);
  };
  if constexpr (kScaled) {
    if (tile == 0) {
      unpack_units<F, true>(panels, first_unit, units, prefetch_of(task.layout, first_unit, 0, 1),
                            unpacked);
    }
    visit_count<1, kTileTokens>(count, shared);
    return;
  }
  const auto direct = [&]<int kPanels, int kTokens, bool kKeep>() {
    const int sharers = kKeep ? 1 : group.tiles;
    direct_tile<F, kPanels, kTokens, kKeep>(
        panels, task, first_unit, units, activations, tile_terms, before, after,
        prefetch_of(task.layout, first_unit, kKeep ? 0 : tile, sharers), &unpacked);
  };
  if constexpr (kWideTokens > kTileTokens) {
    if (count > kTileTokens) {
      visit_count<kTileTokens + 1, kWideTokens>(
          count, [&]<int kTokens>() { direct.template operator()<1, kTokens, false>(); });
      return;
    }
  }
  if (group.tiles <= kDirectTiles) {
    visit_count<1, kTileTokens>(
        count, [&]<int kTokens>() { direct.template operator()<kTilePanels, kTokens, false>(); });
    return;
  }
  if constexpr (kFirstTileUnpacks) {
    if (tile == 0) {
      visit_count<kLeastShared, kTileTokens>(
          count, [&]<int kTokens>() { direct.template operator()<kTilePanels, kTokens, true>(); });
      return;
    }
  } else if (tile == 0) {
    unpack_units<F, false>(panels, first_unit, units, prefetch_of(task.layout, first_unit, 0, 1),
                           unpacked);
  }
  visit_count<kLeastShared, kTileTokens>(count, shared);
}

template <typename F, bool kScaled>
void int8_panels(const MatmulTask& task, const MatmulTask* up, Activation activation) {
  alignas(64) Terms terms;
  alignas(64) float sums[2 * kPanelStride];
  Unpacked unpacked;
  const bool plain = up == nullptr && task.bias == nullptr && task.residual == nullptr;
  const std::int64_t blocks = blocks_of(task.layout);
  const std::int64_t units = task.layout.columns / kUnitColumns;
  const std::int64_t fit = kTermFloats / 3 / blocks;
  const int most = static_cast<int>(fit < kGroupTokens ? fit : kGroupTokens);
  const int groups = (task.tokens + most - 1) / most;
  for (int g = 0; g < groups; ++g) {
    TokenGroup group = {task.tokens * std::int64_t{g} / groups, 0, 0};
    group.tokens = static_cast<int>(task.tokens * (std::int64_t{g} + 1) / groups - group.first);
    // A few tokens more than a tile: one panel at a time, so that weights still come from memory
    // once and without a pause.
    const bool wide = !kScaled && group.tokens > kTileTokens && group.tokens <= kWideTokens;
    const int tile_panels = wide ? 1 : kTilePanels;
    group.tiles = wide ? 1 : (group.tokens + kTileTokens - 1) / kTileTokens;
    for (int tile = 0; tile < group.tiles; ++tile) {
      fill_terms(task.layout, task.int8, group.first + group.begin(tile), group.count(tile),
                 terms.values + 3 * group.begin(tile) * blocks);
    }
    const bool whole = !kScaled && group.tiles <= kDirectTiles;
    const std::int64_t chunks = whole ? 1 : (units + kChunkUnits - 1) / kChunkUnits;
    const std::int64_t step = up == nullptr ? 2 : 1;
    for (std::int64_t i = 0; i < task.panel_count; i += step) {
      const std::int64_t panel = task.first_panel + i;
      const std::byte* weights = task.weights.data();
      const bool two = up != nullptr || i + 1 < task.panel_count;
      // A single last panel is computed twice: cheaper than tiles of another shape would be worth.
      PanelBytes panels[2] = {panel_bytes(task.layout, weights, panel),
                              up != nullptr
                                  ? panel_bytes(up->layout, up->weights.data(), panel)
                                  : panel_bytes(task.layout, weights, two ? panel + 1 : panel)};
      if constexpr (kScaled) {
        panels[0].factors = task.factors + i * blocks * kPanelRows;
        panels[1].factors = panels[0].factors + (two ? blocks * kPanelRows : 0);
      }
      const bool straight = plain && two && (panel + 2) * kPanelRows <= task.layout.rows;
      for (int slot = 0; slot < (two ? 2 : 1); slot += tile_panels) {
        const bool last_slot = !two || slot + tile_panels == 2;
        for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
          const std::int64_t unit = units * chunk / chunks;
          const int chunk_units = static_cast<int>(units * (chunk + 1) / chunks - unit);
          for (int tile = 0; tile < group.tiles; ++tile) {
            const std::int64_t token = group.first + group.begin(tile);
            float* tile_start = sums + group.begin(tile) * kPanelRows;
            float* before = tile_start + slot * kPanelStride;
            const bool last = chunk == chunks - 1;
            Target after = {before, kPanelStride, kPanelRows};
            if (last && straight) {
              const auto stride = static_cast<std::int64_t>(task.out_stride);
              after = {task.out + token * stride + (panel + slot) * kPanelRows, kPanelRows, stride};
            }
            tile_sums<F, kScaled>(task, panels + slot, group, tile, unit, chunk_units, terms.values,
                                  unpacked, before, after);
            // While the next tile computes, the stores of this one drain.
            if (last && last_slot && !straight) {
              finish_tile(task, up, activation, panel, two ? 2 : 1, token, group.count(tile),
                          tile_start);
            }
          }
        }
      }
    }
  }
}

}  // namespace

void int8_matmul(const MatmulTask& task) {
  visit_format(task.layout, [&]<typename F>(F) {
    if (task.factors != nullptr) return int8_panels<F, true>(task, nullptr, Activation::kSilu);
    int8_panels<F, false>(task, nullptr, Activation::kSilu);
  });
}

void int8_matmul_gated(const MatmulTask& gate, const MatmulTask& up, Activation activation) {
  visit_format(gate.layout, [&]<typename F>(F) { int8_panels<F, false>(gate, &up, activation); });
}

}  // namespace hone::kernels::HONE_ISA_NAMESPACE

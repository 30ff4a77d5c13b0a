// Weights of every type as f32 times f32 activations.
// SPDX-License-Identifier: Apache-2.0
//
// Each weight is decoded to the f32 that its format says (the bits of its decoder), 16 rows of some
// columns at a time, into the first-level cache. One output element is one chain of fused
// multiply-adds over the columns in order, so that its bits do not depend on how the work is cut.
#include "kernels/matmul_decode.h"
#include "kernels/matmul_finish.h"

namespace hone::kernels::HONE_ISA_NAMESPACE {
namespace {

// On one thread's stack: about 60 KB.
inline constexpr int kFloatChunk = 256;        // columns that are decoded at a time
inline constexpr int kFloatGroupTokens = 192;  // tokens that share decoded weights

struct Decoded {
  alignas(64) float values[kFloatChunk][kPanelRows];
};

inline void decode_columns(const PackedLayout& layout, const std::byte* weights, std::int64_t panel,
                           std::int64_t first_column, int columns, Decoded& out) {
  decode_panel(layout, weights, panel, first_column, columns, out.values[0], kPanelRows);
}

// One panel's decoded columns times kTokens tokens. sums: (kTokens, 16), begun if `first`.
template <int kTokens>
__attribute__((noinline)) void float_tile(const Decoded& weights, int columns, const float* x,
                                          std::size_t stride, bool first, float* sums_out) {
  Floats sums[kTokens];
  HONE_UNROLL for (int n = 0; n < kTokens; ++n) {
    sums[n] = first ? splat(0.0F) : load_floats(sums_out + n * kPanelRows);
  }
  const std::int64_t step = static_cast<std::int64_t>(stride);
  for (int column = 0; column < columns; ++column) {
    const Floats weight = load_floats(weights.values[column]);
    HONE_UNROLL for (int n = 0; n < kTokens; ++n) {
      sums[n] = fma(weight, splat(x[n * step + column]), sums[n]);
    }
  }
  HONE_UNROLL for (int n = 0; n < kTokens; ++n) store_floats(sums[n], sums_out + n * kPanelRows);
}

template <int kMost>
HONE_INLINE void visit_float_tile(int tokens, const Decoded& weights, int columns, const float* x,
                                  std::size_t stride, bool first, float* sums) {
  if constexpr (kMost > 1) {
    if (tokens < kMost) {
      visit_float_tile<kMost - 1>(tokens, weights, columns, x, stride, first, sums);
      return;
    }
  }
  float_tile<kMost>(weights, columns, x, stride, first, sums);
}

// sums: (tokens, 16) of one panel.
inline void float_panel(const PackedLayout& layout, const std::byte* weights, std::int64_t panel,
                        const FloatRows& input, std::int64_t first_token, int tokens,
                        Decoded& decoded, float* sums) {
  const int tiles = (tokens + kFloatTileTokens - 1) / kFloatTileTokens;
  for (std::int64_t column = 0; column < layout.columns; column += kFloatChunk) {
    const std::int64_t rest = layout.columns - column;
    const int columns = static_cast<int>(rest < kFloatChunk ? rest : kFloatChunk);
    decode_columns(layout, weights, panel, column, columns, decoded);
    for (int tile = 0; tile < tiles; ++tile) {
      const int begin = tokens * tile / tiles;
      const int count = tokens * (tile + 1) / tiles - begin;
      const float* x =
          input.values + (first_token + begin) * static_cast<std::int64_t>(input.stride) + column;
      visit_float_tile<kFloatTileTokens>(count, decoded, columns, x, input.stride, column == 0,
                                         sums + begin * kPanelRows);
    }
  }
}

inline void float_panels(const MatmulTask& task, const MatmulTask* up, Activation activation) {
  Decoded decoded;
  alignas(64) float sums[2][kFloatGroupTokens * kPanelRows];
  const int groups = (task.tokens + kFloatGroupTokens - 1) / kFloatGroupTokens;
  for (int group = 0; group < groups; ++group) {
    const std::int64_t first = task.tokens * std::int64_t{group} / groups;
    const int tokens = static_cast<int>(task.tokens * (std::int64_t{group} + 1) / groups - first);
    for (std::int64_t i = 0; i < task.panel_count; ++i) {
      const std::int64_t panel = task.first_panel + i;
      float_panel(task.layout, task.weights.data(), panel, task.floats, first, tokens, decoded,
                  sums[0]);
      if (up == nullptr) {
        finish_panel(task, panel, first, tokens, sums[0]);
      } else {
        float_panel(up->layout, up->weights.data(), panel, task.floats, first, tokens, decoded,
                    sums[1]);
        finish_gated_panel(task, *up, activation, panel, first, tokens, sums[0], sums[1]);
      }
    }
  }
}

}  // namespace

void decode_weights(const PackedLayout& layout, std::span<const std::byte> weights,
                    std::int64_t panel, std::int64_t first_column, int columns,
                    std::span<float> out) {
  decode_panel(layout, weights.data(), panel, first_column, columns, out.data(), kPanelRows);
}

void f32_matmul(const MatmulTask& task) { float_panels(task, nullptr, Activation::kSilu); }

void f32_matmul_gated(const MatmulTask& gate, const MatmulTask& up, Activation activation) {
  float_panels(gate, &up, activation);
}

}  // namespace hone::kernels::HONE_ISA_NAMESPACE

// What happens to the sums of a panel before they reach memory: bias, activation, residual.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/matmul.h"
#include "kernels/matmul_lanes.h"

namespace hone::kernels::HONE_ISA_NAMESPACE {
namespace {

// e^x for x in [-87, 88], clamped to it; relative error below 2e-7. Cephes' expf: x = n ln 2 + r,
// |r| <= ln 2 / 2, a polynomial of degree 5 in r.
HONE_INLINE Floats exponential(Floats x) {
  x = minimum(maximum(x, splat(-87.0F)), splat(88.0F));
  constexpr float kRound = 12582912.0F;  // 1.5 * 2^23: adding it rounds to an integer
  const Floats n = subtract(fma(x, splat(1.44269504F), splat(kRound)), splat(kRound));
  Floats r = fma(n, splat(-0.693359375F), x);
  r = fma(n, splat(2.12194440e-4F), r);
  Floats p = fma(splat(1.9875691500e-4F), r, splat(1.3981999507e-3F));
  p = fma(p, r, splat(8.3334519073e-3F));
  p = fma(p, r, splat(4.1665795894e-2F));
  p = fma(p, r, splat(1.6666665459e-1F));
  p = fma(p, r, splat(5.0000001201e-1F));
  p = add(fma(p, multiply(r, r), r), splat(1.0F));
  return scale_by_power(p, n);
}

// x / (1 + e^-x)
HONE_INLINE Floats silu(Floats x) {
  const Floats one = splat(1.0F);
  return divide(x, add(one, exponential(subtract(splat(0.0F), x))));
}

// x / 2 (1 + tanh(u)) = x / (1 + e^-2u), u = sqrt(2 / pi) (x + 0.044715 x^3)
HONE_INLINE Floats gelu_tanh(Floats x) {
  const Floats cubic = fma(multiply(multiply(x, x), x), splat(0.044715F), x);
  return divide(x, add(splat(1.0F), exponential(multiply(cubic, splat(-1.5957691216057308F)))));
}

HONE_INLINE Floats load_some(const float* from, int count) {
  alignas(64) float values[kPanelRows] = {};
  for (int i = 0; i < count; ++i) values[i] = from[i];
  return load_floats(values);
}

HONE_INLINE void store_some(Floats x, float* to, int count) {
  alignas(64) float values[kPanelRows];
  store_floats(x, values);
  for (int i = 0; i < count; ++i) to[i] = values[i];
}

// Rows of panel `panel` that exist: 16, or fewer in the last.
HONE_INLINE int rows_of_panel(const PackedLayout& layout, std::int64_t panel) {
  const std::int64_t rows = layout.rows - panel * kPanelRows;
  return static_cast<int>(rows < kPanelRows ? rows : kPanelRows);
}

HONE_INLINE Floats with_bias(Floats sum, const MatmulTask& task, std::int64_t panel, int rows) {
  if (task.bias == nullptr) return sum;
  const float* bias = task.bias + panel * kPanelRows;
  return add(sum, rows == kPanelRows ? load_floats(bias) : load_some(bias, rows));
}

HONE_INLINE void store_result(Floats value, const MatmulTask& task, std::int64_t token,
                              std::int64_t panel, int rows) {
  const std::int64_t row = panel * kPanelRows;
  const auto place = [&](std::size_t stride) {
    return token * static_cast<std::int64_t>(stride) + row;
  };
  float* out = task.out + place(task.out_stride);
  if (task.residual != nullptr) {
    const float* residual = task.residual + place(task.residual_stride);
    value = add(value, rows == kPanelRows ? load_floats(residual) : load_some(residual, rows));
  }
  if (rows == kPanelRows) {
    store_floats(value, out);
  } else {
    store_some(value, out, rows);
  }
}

// sums: (tokens, 16) of panel `panel`, for tokens first_token and on.
inline void finish_panel(const MatmulTask& task, std::int64_t panel, std::int64_t first_token,
                         std::int64_t tokens, const float* sums) {
  const int rows = rows_of_panel(task.layout, panel);
  for (std::int64_t token = 0; token < tokens; ++token) {
    const Floats sum = load_floats(sums + token * kPanelRows);
    store_result(with_bias(sum, task, panel, rows), task, first_token + token, panel, rows);
  }
}

inline void finish_gated_panel(const MatmulTask& gate, const MatmulTask& up, Activation activation,
                               std::int64_t panel, std::int64_t first_token, std::int64_t tokens,
                               const float* gate_sums, const float* up_sums) {
  const int rows = rows_of_panel(gate.layout, panel);
  for (std::int64_t token = 0; token < tokens; ++token) {
    const std::int64_t at = token * kPanelRows;
    const Floats g = with_bias(load_floats(gate_sums + at), gate, panel, rows);
    const Floats u = with_bias(load_floats(up_sums + at), up, panel, rows);
    const Floats activated = activation == Activation::kSilu ? silu(g) : gelu_tanh(g);
    store_result(multiply(activated, u), gate, first_token + token, panel, rows);
  }
}

}  // namespace
}  // namespace hone::kernels::HONE_ISA_NAMESPACE

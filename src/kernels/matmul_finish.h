// What happens to the sums of a panel before they reach memory: bias, activation, residual.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>

#include "kernels/matmul.h"
#include "kernels/matmul_lanes.h"

namespace hone::kernels::HONE_ISA_NAMESPACE {

// activation.inl of this instruction set: a fused gate gives the same bits as the ops that it
// stands for.
void silu_mul(std::span<const float> gate, std::span<const float> up, std::span<float> out);
void gelu_tanh_mul(std::span<const float> gate, std::span<const float> up, std::span<float> out);

namespace {

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
  const auto function = activation == Activation::kSilu ? silu_mul : gelu_tanh_mul;
  constexpr std::int64_t kTokens = 16;  // at a time: one call for many sums
  alignas(64) float gates[kTokens * kPanelRows];
  alignas(64) float ups[kTokens * kPanelRows];
  for (std::int64_t first = 0; first < tokens; first += kTokens) {
    const std::int64_t count = tokens - first < kTokens ? tokens - first : kTokens;
    for (std::int64_t token = 0; token < count; ++token) {
      const std::int64_t from = (first + token) * kPanelRows;
      const std::int64_t to = token * kPanelRows;
      store_floats(with_bias(load_floats(gate_sums + from), gate, panel, rows), gates + to);
      store_floats(with_bias(load_floats(up_sums + from), up, panel, rows), ups + to);
    }
    const auto size = static_cast<std::size_t>(count * kPanelRows);
    function({gates, size}, {ups, size}, {gates, size});
    for (std::int64_t token = 0; token < count; ++token) {
      store_result(load_floats(gates + token * kPanelRows), gate, first_token + first + token,
                   panel, rows);
    }
  }
}

}  // namespace
}  // namespace hone::kernels::HONE_ISA_NAMESPACE

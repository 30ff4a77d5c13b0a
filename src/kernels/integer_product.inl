// Tiles of eight rows times a panel of eight outputs; integer_product.h says what they are.
// SPDX-License-Identifier: Apache-2.0
//
// Pairs of 16-bit values: two multiplications and an addition in one instruction (VPMADDWD), which
// never saturates at these magnitudes.
#include "kernels/integer_product.h"

#if !defined(HONE_ISA_SCALAR)
#include <immintrin.h>
#endif

namespace hone::kernels::HONE_ISA_NAMESPACE {
namespace {

constexpr std::size_t kIntegerRows = 8;

inline std::int32_t pair_at(const std::int16_t* x, std::size_t index) {
  std::int32_t pair = 0;
  __builtin_memcpy(&pair, x + 2 * index, sizeof(pair));
  return pair;
}

// Sums of kRows rows against one panel, (kRows, 8).
template <std::size_t kRows>
inline void integer_tile(const std::int16_t* x, const std::int32_t* w, std::size_t pairs,
                         std::int32_t* sums) {
#if defined(HONE_ISA_SCALAR)
  for (std::size_t i = 0; i < kRows * kIntegerPanel; ++i) sums[i] = 0;
  const auto low = [](std::int32_t pair) { return std::int32_t{static_cast<std::int16_t>(pair)}; };
  const auto high = [](std::int32_t pair) { return pair >> 16; };
  for (std::size_t pair = 0; pair < pairs; ++pair, w += kIntegerPanel) {
    for (std::size_t row = 0; row < kRows; ++row) {
      const std::int32_t value = pair_at(x, row * pairs + pair);
      for (std::size_t lane = 0; lane < kIntegerPanel; ++lane) {
        sums[row * kIntegerPanel + lane] += low(value) * low(w[lane]) + high(value) * high(w[lane]);
      }
    }
  }
#else
  __m256i total[kRows];
  for (std::size_t row = 0; row < kRows; ++row) total[row] = _mm256_setzero_si256();
  for (std::size_t pair = 0; pair < pairs; ++pair, w += kIntegerPanel) {
    const __m256i right = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w));
    for (std::size_t row = 0; row < kRows; ++row) {
      const __m256i left = _mm256_set1_epi32(pair_at(x, row * pairs + pair));
      total[row] = _mm256_add_epi32(total[row], _mm256_madd_epi16(left, right));
    }
  }
  for (std::size_t row = 0; row < kRows; ++row) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums + row * kIntegerPanel), total[row]);
  }
#endif
}

}  // namespace

void integer_product(const IntegerProductTask& task) {
  std::int32_t sums[kIntegerRows * kIntegerPanel];
  for (std::size_t first = 0; first < task.rows; first += kIntegerRows) {
    const std::size_t rows = task.rows - first < kIntegerRows ? task.rows - first : kIntegerRows;
    const std::int16_t* x = task.x + first * task.pairs * 2;
    for (std::size_t panel = 0; panel < task.outputs; panel += kIntegerPanel) {
      const std::int32_t* w = task.w + panel * task.pairs;
      if (rows == kIntegerRows) {
        integer_tile<kIntegerRows>(x, w, task.pairs, sums);
      } else {
        for (std::size_t row = 0; row < rows; ++row) {
          integer_tile<1>(x + row * task.pairs * 2, w, task.pairs, sums + row * kIntegerPanel);
        }
      }
      const std::size_t columns =
          task.outputs - panel < kIntegerPanel ? task.outputs - panel : kIntegerPanel;
      for (std::size_t row = 0; row < rows; ++row) {
        std::int32_t* to = task.out + (first + row) * task.outputs + panel;
        for (std::size_t lane = 0; lane < columns; ++lane) {
          to[lane] = sums[row * kIntegerPanel + lane];
        }
      }
    }
  }
}

}  // namespace hone::kernels::HONE_ISA_NAMESPACE

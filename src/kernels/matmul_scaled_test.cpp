// Products with scaled weights: every quantized type and instruction set.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/random.h"
#include "kernels/gemm.h"
#include "kernels/matmul.h"
#include "kernels/packed.h"
#include "kernels/registry.h"
#include "quant/codec.h"

namespace hone::kernels {
namespace {

using Values = std::vector<float>;

Values draw(std::int64_t count, float size, Random& random) {
  Values out(static_cast<std::size_t>(count));
  for (float& value : out) value = size * random.normal();
  return out;
}

std::size_t at(std::int64_t index) { return static_cast<std::size_t>(index); }

struct Weights {
  PackedLayout layout;
  std::vector<std::byte> source, packed;
  Values decoded;  // (R, K)
  Values factors;  // (R, K / group), around 0
  std::int64_t group;

  Weights(DType dtype, std::int64_t rows, std::int64_t columns, Random& random)
      : layout(*packed_layout(dtype, rows, columns)), group(dtype_info(dtype).block) {
    source = *quant::quantize(dtype, draw(rows * columns, 0.05F, random));
    packed.resize(at(layout.total_bytes));
    pack_panels(layout, source, 0, layout.panels(), packed);
    decoded = *quant::dequantize(dtype, source);
    factors = draw(rows * columns / group, 0.3F, random);
  }
  std::int64_t blocks() const { return layout.columns / layout.block_columns; }
  double weight(std::int64_t row, std::int64_t column) const {
    const std::int64_t index = row * layout.columns + column;
    return (1 + double{factors[at(index / group)]}) * double{decoded[at(index)]};
  }
  // (panels, blocks, 16)
  Values beside() const {
    Values out(at(layout.panels() * blocks() * kPanelRows), 0.0F);
    for (std::int64_t row = 0; row < layout.rows; ++row) {
      for (std::int64_t b = 0; b < blocks(); ++b) {
        const std::int64_t of = (row * layout.columns + b * layout.block_columns) / group;
        out[at((row / kPanelRows * blocks() + b) * kPanelRows + row % kPanelRows)] =
            1 + factors[at(of)];
      }
    }
    return out;
  }
};

struct Rows {
  std::vector<std::int8_t> codes;
  Values scales, sums, values;

  Rows(std::int64_t tokens, std::int64_t columns, Random& random) {
    for (std::int64_t block = 0; block < tokens * columns / 32; ++block) {
      int sum = 0;
      const float scale = 0.001F + 0.02F * random.uniform();
      for (int i = 0; i < 32; ++i) {
        codes.push_back(static_cast<std::int8_t>(static_cast<int>(random.below(255)) - 127));
        sum += codes.back();
        values.push_back(scale * static_cast<float>(codes.back()));
      }
      scales.push_back(scale);
      sums.push_back(scale * static_cast<float>(sum));
    }
  }
};

Values multiply(const KernelTable& table, const Weights& weights, const Rows& rows, int tokens,
                const float* factors) {
  MatmulTask task;
  task.layout = weights.layout;
  task.weights = weights.packed;
  task.panel_count = weights.layout.panels();
  task.tokens = tokens;
  task.int8 = {rows.codes.data(), rows.scales.data(), rows.sums.data()};
  Values out(at(tokens * weights.layout.rows));
  task.out = out.data();
  task.out_stride = at(weights.layout.rows);
  task.factors = factors;
  table.int8_matmul(task);
  return out;
}

class ScaledMatmul : public testing::TestWithParam<DType> {};

TEST_P(ScaledMatmul, EqualsDoublePrecisionAndThePlainProductAtOne) {
  Random random(3);
  for (const int tokens : {1, 4, 7, 33, 140}) {
    for (const std::int64_t rows : {16, 35, 64}) {
      const Weights weights(GetParam(), rows, tokens == 7 ? 1280 : 256, random);
      const Rows x(tokens, weights.layout.columns, random);
      const Values factors = weights.beside();
      const Values ones(factors.size(), 1.0F);
      for (const KernelTable* table : available_kernels()) {
        const Values found = multiply(*table, weights, x, tokens, factors.data());
        for (std::int64_t n = 0; n < tokens; ++n) {
          for (std::int64_t row = 0; row < rows; ++row) {
            double sum = 0, size = 0;
            for (std::int64_t k = 0; k < weights.layout.columns; ++k) {
              const double term =
                  weights.weight(row, k) * double{x.values[at(n * weights.layout.columns + k)]};
              sum += term;
              size += std::abs(term);
            }
            // A few roundings to 22 or 24 bits a block of terms; with a minimum its two parts may
            // be larger than their sum.
            ASSERT_NEAR(found[at(n * rows + row)], sum, 64 * 0x1p-24 * size)
                << table->isa << ", token " << n << " of " << tokens << ", row " << row;
          }
        }
        EXPECT_EQ(multiply(*table, weights, x, tokens, ones.data()),
                  multiply(*table, weights, x, tokens, nullptr))
            << table->isa;
      }
    }
  }
}

TEST_P(ScaledMatmul, DenseProductsScaleWhatTheyDecode) {
  Random random(5);
  const Weights weights(GetParam(), 300, 512, random);
  std::vector<std::byte> scratch(kGemmScratchBytes);
  for (const bool transposed : {false, true}) {
    for (const bool packed : {false, true}) {
      constexpr std::int64_t kTokens = 5;
      const std::int64_t depth = transposed ? 512 : 300;
      const std::int64_t columns = transposed ? 300 : 512;
      const Values a = draw(kTokens * depth, 1, random);
      for (const KernelTable* table : available_kernels()) {
        Values c(at(kTokens * columns));
        GemmTask task;
        task.rows = kTokens;
        task.columns = columns;
        task.depth = depth;
        task.a = a.data();
        task.a_stride = at(depth);
        task.b = {GetParam(), 300, 512, packed, packed ? weights.packed : weights.source};
        task.b.factors = weights.factors.data();
        task.b.factor_columns = weights.group;
        task.b.factor_base = 1;
        task.b_transposed = transposed;
        task.c = c.data();
        task.c_stride = at(columns);
        task.scratch = scratch;
        set_gemm_share(task, 0, 1);
        table->gemm_f32(task);
        for (std::int64_t n = 0; n < kTokens; ++n) {
          for (std::int64_t j = 0; j < columns; ++j) {
            double sum = 0, size = 0;
            for (std::int64_t d = 0; d < depth; ++d) {
              const double term = double{a[at(n * depth + d)]} *
                                  (transposed ? weights.weight(j, d) : weights.weight(d, j));
              sum += term;
              size += std::abs(term);
            }
            ASSERT_NEAR(c[at(n * columns + j)], sum, 64 * 0x1p-24 * size)
                << table->isa << ", transposed " << transposed << ", packed " << packed;
          }
        }
      }
    }
  }
}

TEST_P(ScaledMatmul, DecodesWhatTheCodecDecodes) {
  Random random(7);
  const Weights weights(GetParam(), 35, 512, random);
  for (const KernelTable* table : available_kernels()) {
    Values out(at(256 * kPanelRows));
    table->decode_weights(weights.layout, weights.packed, 2, 256, 256, out);
    for (std::int64_t row = 32; row < 35; ++row) {
      for (std::int64_t k = 0; k < 256; ++k) {
        EXPECT_EQ(out[at(k * kPanelRows + row - 32)], weights.decoded[at(row * 512 + 256 + k)]);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, ScaledMatmul,
                         testing::Values(DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1,
                                         DType::kQ8_0, DType::kIQ4_NL, DType::kQ2_K, DType::kQ3_K,
                                         DType::kQ4_K, DType::kQ5_K, DType::kQ6_K),
                         [](const auto& info) { return std::string(dtype_name(info.param)); });

}  // namespace
}  // namespace hone::kernels

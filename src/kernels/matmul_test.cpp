// Packed weights and matrix multiplication: every type, instruction set and odd shape.
// SPDX-License-Identifier: Apache-2.0
#include "kernels/matmul.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>
#include <string>
#include <vector>

#include "base/half.h"
#include "base/random.h"
#include "kernels/packed.h"
#include "kernels/registry.h"
#include "quant/codec.h"

namespace hone::kernels {
namespace {

constexpr std::int64_t kRows[] = {1, 15, 16, 17, 40};
constexpr int kTokens[] = {1, 2, 3, 5, 6, 7, 8, 13, 17};
constexpr float kGuard = -12345.5F;
constexpr double kEpsilon = 0x1p-24;  // half an ulp of 1 in f32

std::vector<DType> weight_types() {
  std::vector<DType> types;
  for (const DTypeInfo& info : all_dtypes()) {
    if (packed_layout(info.dtype, 16, 256)) types.push_back(info.dtype);
  }
  return types;
}

std::vector<std::int64_t> columns_of(DType dtype) {
  const std::int64_t block = dtype_info(dtype).block;
  if (block == 1) return {1, 33, 300, 576};
  if (block == 256) return {256, 1280};
  return {32, 64, 96, 256, 576, 1152};
}

// Weights with every code and scales of a moderate size, as a file would hold them.
std::vector<std::byte> random_weights(DType dtype, std::int64_t count, std::uint64_t seed) {
  Random random(seed);
  const DTypeInfo& info = dtype_info(dtype);
  std::vector<std::byte> bytes(static_cast<std::size_t>(dtype_bytes(dtype, count)));
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random.next_u32() & 255);
  const auto put = [&](std::byte* at, std::uint16_t half) { std::memcpy(at, &half, 2); };
  const auto half = [&] { return f32_to_f16(random.normal() * 0.01F); };
  for (std::size_t at = 0; at < bytes.size(); at += static_cast<std::size_t>(info.bytes)) {
    std::byte* block = bytes.data() + at;
    switch (dtype) {
      case DType::kF32: {
        const float value = random.normal();
        std::memcpy(block, &value, sizeof(value));
        break;
      }
      case DType::kF16: put(block, f32_to_f16(random.normal())); break;
      case DType::kBF16: put(block, f32_to_bf16(random.normal())); break;
      case DType::kQ4_1:
      case DType::kQ5_1:
      case DType::kQ4_K:
      case DType::kQ5_K:
        put(block, half());
        put(block + 2, half());
        break;
      case DType::kQ2_K:
        put(block + 80, half());
        put(block + 82, half());
        break;
      case DType::kQ3_K:
      case DType::kQ6_K: put(block + info.bytes - 2, half()); break;
      default: put(block, half());
    }
  }
  return bytes;
}

// One matrix: its source, its packed form (at an odd address), and what its decoder says.
struct Weights {
  PackedLayout layout;
  std::vector<std::byte> source;
  std::vector<std::byte> storage;
  std::vector<float> decoded;  // (rows, columns)

  std::span<const std::byte> packed() const { return std::span(storage).subspan(1); }
};

Weights make_weights(DType dtype, std::int64_t rows, std::int64_t columns, std::uint64_t seed) {
  Weights weights;
  weights.layout = *packed_layout(dtype, rows, columns);
  weights.source = random_weights(dtype, rows * columns, seed);
  weights.storage.resize(static_cast<std::size_t>(weights.layout.total_bytes) + 1);
  pack_panels(weights.layout, weights.source, 0, weights.layout.panels(),
              std::span(weights.storage).subspan(1));
  weights.decoded.resize(static_cast<std::size_t>(rows * columns));
  quant::find_codec(dtype)->decode(weights.source, weights.decoded);
  return weights;
}

// Activations in both forms; the floats are exactly scale * code rounded.
struct Activations {
  std::vector<std::int8_t> codes;
  std::vector<float> scales, sums, values;

  Activations(int tokens, std::int64_t columns, std::uint64_t seed) {
    Random random(seed);
    const std::int64_t count = tokens * columns;
    for (std::int64_t i = 0; i < count; ++i) {
      codes.push_back(static_cast<std::int8_t>(static_cast<int>(random.below(255)) - 127));
    }
    for (std::int64_t block = 0; block < count / 32; ++block) {
      int sum = 0;
      for (int i = 0; i < 32; ++i) sum += codes[static_cast<std::size_t>(block * 32 + i)];
      // Some blocks are zero, as the quantizer leaves them.
      const bool zero = random.below(8) == 0;
      if (zero) std::fill_n(codes.begin() + block * 32, 32, std::int8_t{0});
      scales.push_back(zero ? 0.0F : 0.001F + 0.02F * random.uniform());
      sums.push_back(zero ? 0.0F : scales.back() * static_cast<float>(sum));
    }
    for (std::int64_t i = 0; i < count; ++i) {
      const std::size_t block = static_cast<std::size_t>(i / 32);
      values.push_back(block < scales.size()
                           ? scales[block] * static_cast<float>(codes[static_cast<std::size_t>(i)])
                           : random.normal());
    }
  }
};

MatmulTask make_task(const Weights& weights, const Activations& x, int tokens,
                     std::vector<float>& out, std::size_t stride) {
  MatmulTask task;
  task.layout = weights.layout;
  task.weights = weights.packed();
  task.panel_count = weights.layout.panels();
  task.tokens = tokens;
  task.int8 = {x.codes.data(), x.scales.data(), x.sums.data()};
  task.floats = {x.values.data(), static_cast<std::size_t>(weights.layout.columns)};
  out.assign(static_cast<std::size_t>(tokens) * stride, kGuard);
  task.out = out.data();
  task.out_stride = stride;
  return task;
}

struct Expected {
  double value = 0.0;
  double magnitude = 0.0;  // sum of what the rounding errors are relative to
};

// exact: activations as scale * code in double; otherwise as their f32 values.
Expected expected(const Weights& weights, const Activations& x, std::int64_t token,
                  std::int64_t row, bool exact) {
  const std::int64_t columns = weights.layout.columns;
  const float* w = weights.decoded.data() + row * columns;
  double largest = 0.0;
  for (std::int64_t c = 0; c < columns; ++c) largest = std::max(largest, std::fabs(double{w[c]}));
  Expected sum;
  for (std::int64_t c = 0; c < columns; ++c) {
    const auto i = static_cast<std::size_t>(token * columns + c);
    const double value = exact ? double{x.scales[i / 32]} * x.codes[i] : double{x.values[i]};
    sum.value += double{w[c]} * value;
    // scale * code and the minimum, apart, are at most some 3 times the row's largest weight.
    sum.magnitude +=
        (std::fabs(double{w[c]}) + (weights.layout.minimum ? 3 * largest : 0.0)) * std::fabs(value);
  }
  return sum;
}

// Every float operation adds at most half an ulp of a partial sum; the decoder adds two more.
double tolerance(const Expected& sum, std::int64_t operations) {
  return static_cast<double>(operations + 4) * kEpsilon * sum.magnitude;
}

TEST(PackedLayout, KeepsTheSizeOfTheSource) {
  for (const DType dtype : {DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1, DType::kQ8_0,
                            DType::kIQ4_NL, DType::kF32, DType::kF16, DType::kBF16, DType::kQ6_K}) {
    const auto layout = packed_layout(dtype, 48, 512);
    ASSERT_TRUE(layout);
    EXPECT_EQ(layout->total_bytes, dtype_bytes(dtype, 48 * 512)) << dtype_name(dtype);
  }
  EXPECT_EQ(packed_layout(DType::kQ4_K, 16, 256)->total_bytes * 8, 4096 * 37 / 8);
  EXPECT_EQ(packed_layout(DType::kQ2_K, 16, 256)->total_bytes * 8, 4096 * 25 / 8);
}

TEST(PackedLayout, RefusesWhatHoldsNoWeights) {
  EXPECT_FALSE(packed_layout(DType::kI32, 16, 32));
  EXPECT_FALSE(packed_layout(DType::kF64, 16, 32));
  EXPECT_FALSE(packed_layout(DType::kQ4_0, 16, 33));
  EXPECT_FALSE(packed_layout(DType::kQ6_K, 16, 32));
  EXPECT_FALSE(packed_layout(DType::kQ4_0, 0, 32));
  EXPECT_FALSE(packed_layout(DType::kQ4_0, 16, 0));
  EXPECT_FALSE(packed_layout(DType::kF32, 16, (1 << 18) + 1));
}

TEST(Packed, RowsComeBackExactly) {
  for (const DType dtype : weight_types()) {
    for (const std::int64_t rows : kRows) {
      for (const std::int64_t columns : columns_of(dtype)) {
        const Weights weights = make_weights(dtype, rows, columns, 1);
        std::vector<float> row(static_cast<std::size_t>(columns));
        for (std::int64_t r = 0; r < rows; ++r) {
          unpack_row(weights.layout, weights.packed(), r, row);
          ASSERT_EQ(std::memcmp(row.data(), weights.decoded.data() + r * columns,
                                row.size() * sizeof(float)),
                    0)
              << dtype_name(dtype) << ' ' << rows << 'x' << columns << " row " << r;
        }
      }
    }
  }
}

TEST(Packed, PanelsCanBePackedApart) {
  const Weights whole = make_weights(DType::kQ5_K, 40, 256, 2);
  std::vector<std::byte> parts(static_cast<std::size_t>(whole.layout.total_bytes), std::byte{0x55});
  pack_panels(whole.layout, whole.source, 2, 1, parts);
  pack_panels(whole.layout, whole.source, 0, 2, parts);
  EXPECT_TRUE(std::equal(parts.begin(), parts.end(), whole.packed().begin()));
}

using Kernel = void (*)(const MatmulTask&);

void check_shape(const KernelTable& table, bool int8, const Weights& weights, const Activations& x,
                 int tokens, std::vector<float>& out) {
  const std::int64_t rows = weights.layout.rows;
  const auto stride = static_cast<std::size_t>(rows) + 3;
  const MatmulTask task = make_task(weights, x, tokens, out, stride);
  (int8 ? table.int8_matmul : table.f32_matmul)(task);
  const std::int64_t operations =
      int8 ? 2 * weights.layout.columns / weights.layout.block_columns : weights.layout.columns;
  const std::string name = std::string(table.isa) + ' ' +
                           std::string(dtype_name(weights.layout.dtype)) + ' ' +
                           std::to_string(rows) + 'x' + std::to_string(weights.layout.columns) +
                           " N=" + std::to_string(tokens);
  for (int token = 0; token < tokens; ++token) {
    const float* y = out.data() + static_cast<std::size_t>(token) * stride;
    for (std::int64_t row = 0; row < rows; ++row) {
      const Expected sum = expected(weights, x, token, row, int8);
      ASSERT_NEAR(y[row], sum.value, tolerance(sum, operations))
          << name << " token " << token << " row " << row;
    }
    for (std::size_t i = static_cast<std::size_t>(rows); i < stride; ++i) {
      ASSERT_EQ(y[i], kGuard) << name << ": written past the rows";
    }
  }
}

// Against a reference in double, and bit for bit against the first instruction set (scalar).
void check_type(DType dtype, bool int8) {
  for (const std::int64_t columns : columns_of(dtype)) {
    for (const std::int64_t rows : kRows) {
      const Weights weights = make_weights(dtype, rows, columns, 3);
      const Activations x(17, columns, 4);
      for (const int tokens : kTokens) {
        std::vector<float> first;
        for (const KernelTable* table : available_kernels()) {
          // Scalar is slow: its small shapes are enough.
          const bool scalar = table == available_kernels().front();
          if (scalar && rows * columns * tokens > 100000) continue;
          std::vector<float> out;
          check_shape(*table, int8, weights, x, tokens, out);
          if (::testing::Test::HasFatalFailure()) return;
          if (first.empty()) first = out;
          ASSERT_EQ(std::memcmp(first.data(), out.data(), out.size() * sizeof(float)), 0)
              << table->isa << " differs, " << dtype_name(dtype) << ' ' << rows << 'x' << columns
              << " N=" << tokens;
        }
      }
    }
  }
}

class MatmulOfType : public ::testing::TestWithParam<DType> {};

TEST_P(MatmulOfType, Int8AgreesWithTheReference) {
  if (!takes_int8(*packed_layout(GetParam(), 16, 256))) GTEST_SKIP() << "plain numbers";
  check_type(GetParam(), true);
}

TEST_P(MatmulOfType, F32AgreesWithTheReference) { check_type(GetParam(), false); }

// A token's bits depend neither on its company nor on the panels of a call. 200 tokens make more
// than one group, 2112 columns more than one chunk.
TEST_P(MatmulOfType, BitsDoNotDependOnTheBatchOrTheSplit) {
  const std::int64_t columns = dtype_info(GetParam()).block == 256 ? 2304 : 2112;
  constexpr int kMany = 200;
  const Weights weights = make_weights(GetParam(), 72, columns, 5);
  const Activations x(kMany, columns, 6);
  for (const KernelTable* table : available_kernels().subspan(available_kernels().size() > 1)) {
    for (const bool int8 : {true, false}) {
      if (int8 && !takes_int8(weights.layout)) continue;
      const Kernel kernel = int8 ? table->int8_matmul : table->f32_matmul;
      std::vector<float> whole;
      kernel(make_task(weights, x, kMany, whole, 72));
      for (const int tokens : kTokens) {
        std::vector<float> out;
        MatmulTask task = make_task(weights, x, tokens, out, 72);
        for (std::int64_t panel = 0; panel < weights.layout.panels(); panel += 3) {
          task.first_panel = panel;
          task.panel_count = std::min<std::int64_t>(3, weights.layout.panels() - panel);
          kernel(task);
        }
        ASSERT_EQ(std::memcmp(whole.data(), out.data(), out.size() * sizeof(float)), 0)
            << table->isa << ' ' << dtype_name(GetParam()) << " N=" << tokens << " int8=" << int8;
      }
    }
  }
}

TEST_P(MatmulOfType, BiasResidualAndGate) {
  constexpr std::int64_t kColumns = 256;
  constexpr std::int64_t kAll = 40;
  constexpr int kCount = 9;
  const Weights gate = make_weights(GetParam(), kAll, kColumns, 7);
  const Weights up = make_weights(GetParam(), kAll, kColumns, 8);
  const Activations x(kCount, kColumns, 9);
  std::vector<float> bias, residual;
  Random random(10);
  for (int i = 0; i < kAll; ++i) bias.push_back(random.normal());
  for (int i = 0; i < kAll * kCount; ++i) residual.push_back(random.normal());
  for (const KernelTable* table : available_kernels()) {
    for (const bool int8 : {true, false}) {
      if (int8 && !takes_int8(gate.layout)) continue;
      const Kernel kernel = int8 ? table->int8_matmul : table->f32_matmul;
      std::vector<float> gate_out, up_out, out;
      kernel(make_task(gate, x, kCount, gate_out, kAll));
      kernel(make_task(up, x, kCount, up_out, kAll));

      MatmulTask task = make_task(gate, x, kCount, out, kAll);
      out = residual;  // in place
      task.bias = bias.data();
      task.residual = out.data();
      task.residual_stride = kAll;
      kernel(task);
      for (std::size_t i = 0; i < out.size(); ++i) {
        ASSERT_EQ(out[i], (gate_out[i] + bias[i % kAll]) + residual[i]) << table->isa;
      }

      const MatmulTask up_task = make_task(up, x, kCount, up_out, kAll);
      kernel(up_task);
      for (const Activation activation : {Activation::kSilu, Activation::kGeluTanh}) {
        task = make_task(gate, x, kCount, out, kAll);
        (int8 ? table->int8_matmul_gated : table->f32_matmul_gated)(task, up_task, activation);
        for (std::size_t i = 0; i < out.size(); ++i) {
          const double g = gate_out[i];
          const double u = std::sqrt(2.0 / std::numbers::pi) * (g + 0.044715 * g * g * g);
          // 1 + tanh(u) = 2 / (1 + e^-2u), without the cancellation.
          const double exponent = activation == Activation::kSilu ? -g : -2 * u;
          const double activated = g / (1.0 + std::exp(exponent));
          // e^x within 2e-7 of itself; gelu's exponent 2u carries its rounding, at most 2^-22 |2u|,
          // and where e^x is clamped (|x| > 87) the value is below 1e-35.
          const double relative =
              1e-6 + (activation == Activation::kSilu ? 0.0 : 4 * kEpsilon * 87);
          ASSERT_NEAR(out[i], activated * up_out[i],
                      relative * std::fabs(activated * up_out[i]) + 1e-30)
              << table->isa << ' ' << dtype_name(GetParam()) << " g=" << g;
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Types, MatmulOfType, ::testing::ValuesIn(weight_types()),
                         [](const auto& info) { return std::string(dtype_name(info.param)); });

}  // namespace
}  // namespace hone::kernels

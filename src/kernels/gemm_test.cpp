// Dense products: every source of B, odd shapes, shares of threads; bit for bit, between guards.
// SPDX-License-Identifier: Apache-2.0
#include "kernels/gemm.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "base/half.h"
#include "base/random.h"
#include "kernels/battery.h"
#include "quant/codec.h"

namespace hone::kernels {
namespace {

struct Shape {
  std::int64_t rows, columns, depth;
};

std::vector<float> random_values(std::int64_t count, std::uint64_t seed) {
  Random random(seed);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) value = random.normal();
  return values;
}

// A weight matrix as bytes of its type, and what its decoder says.
struct Weights {
  GemmMatrix matrix;
  std::vector<std::byte> bytes;
  std::vector<float> decoded;

  Weights(DType dtype, std::int64_t rows, std::int64_t columns, bool packed, std::uint64_t seed) {
    const std::vector<float> values = random_values(rows * columns, seed);
    bytes = *quant::quantize(dtype, values);
    decoded = *quant::dequantize(dtype, bytes);
    if (packed) {
      const PackedLayout layout = *packed_layout(dtype, rows, columns);
      std::vector<std::byte> panels(static_cast<std::size_t>(layout.total_bytes));
      pack_panels(layout, bytes, 0, layout.panels(), panels);
      bytes = std::move(panels);
    }
    matrix = {dtype, rows, columns, packed, bytes};
  }

  // The signs of a direction, which kernels draw themselves.
  Weights(const DirectionKey& key, std::int64_t rows, std::int64_t columns) {
    for (std::int64_t i = 0; i < rows * columns; ++i) {
      const auto words = direction_draw(key, static_cast<std::uint32_t>(i / kSignsOfDraw));
      const auto bit = static_cast<std::uint32_t>(i % kSignsOfDraw);
      decoded.push_back(((words[bit / 32] >> (bit % 32)) & 1) != 0 ? -1.0F : 1.0F);
    }
    matrix.rows = rows;
    matrix.columns = columns;
    matrix.signs = &key;
  }
};

// Of pairs of bf16: the second product first.
float expected_rounded_element(const GemmTask& task, const std::vector<float>& a,
                               const std::vector<float>& b, std::int64_t row, std::int64_t column,
                               float start) {
  float sum = start;
  const auto product = [&](std::int64_t d) {
    const std::int64_t stride = static_cast<std::int64_t>(task.a_stride);
    const std::int64_t left = task.a_transposed ? d * stride + row : row * stride + d;
    const std::int64_t right =
        task.b_transposed ? column * task.b.columns + d : d * task.b.columns + column;
    return bf16_to_f32(f32_to_bf16(a[static_cast<std::size_t>(left)])) *
           bf16_to_f32(f32_to_bf16(b[static_cast<std::size_t>(right)]));
  };
  for (std::int64_t d = 0; d < task.depth; d += 2) {
    if (d + 1 < task.depth) sum += product(d + 1);
    sum += product(d);
  }
  return sum;
}

// One chain of fused multiply-adds in the order of the depth: what gemm.h promises.
float expected_element(const GemmTask& task, const std::vector<float>& a,
                       const std::vector<float>& b, std::int64_t row, std::int64_t column,
                       float start) {
  float sum = start;
  for (std::int64_t d = 0; d < task.depth; ++d) {
    const std::int64_t stride = static_cast<std::int64_t>(task.a_stride);
    const float left =
        a[static_cast<std::size_t>(task.a_transposed ? d * stride + row : row * stride + d)];
    const std::int64_t at =
        task.b_transposed ? column * task.b.columns + d : d * task.b.columns + column;
    sum = std::fma(left, b[static_cast<std::size_t>(at)], sum);
  }
  return sum;
}

// The instruction rounds within a pair in a way of its own.
bool native_bf16(const KernelTable& table) { return table.peak_bf16(1).operations > 0; }

void check(const KernelTable& table, Shape shape, bool a_transposed, const Weights& weights,
           bool b_transposed, bool accumulate, int threads, bool bf16 = false) {
  const std::size_t a_stride =
      static_cast<std::size_t>(a_transposed ? shape.rows : shape.depth) + 3;
  const std::vector<float> a = random_values(
      static_cast<std::int64_t>(a_stride) * (a_transposed ? shape.depth : shape.rows), 5);
  const std::size_t c_stride = static_cast<std::size_t>(shape.columns) + 5;
  Row c(c_stride * static_cast<std::size_t>(shape.rows));
  std::fill(c.span().begin(), c.span().end(), 0.5F);
  GemmTask task;
  task.rows = shape.rows;
  task.columns = shape.columns;
  task.depth = shape.depth;
  task.a = a.data();
  task.a_stride = a_stride;
  task.a_transposed = a_transposed;
  task.b = weights.matrix;
  task.b_transposed = b_transposed;
  task.c = c.span().data();
  task.c_stride = c_stride;
  task.accumulate = accumulate;
  Guarded<std::byte> scratch(kGemmScratchBytes, 0);
  task.scratch = scratch;
  for (int thread = 0; thread < threads; ++thread) {
    set_gemm_share(task, thread, threads);
    (bf16 ? table.gemm_bf16 : table.gemm_f32)(task);
  }
  ASSERT_TRUE(c.intact());
  ASSERT_TRUE(scratch.intact());
  for (std::int64_t row = 0; row < shape.rows; ++row) {
    for (std::int64_t column = 0; column < static_cast<std::int64_t>(c_stride); ++column) {
      const float found =
          c[static_cast<std::size_t>(row) * c_stride + static_cast<std::size_t>(column)];
      const bool inside = column < shape.columns;
      const auto& expect = bf16 ? expected_rounded_element : expected_element;
      const float expected =
          inside ? expect(task, a, weights.decoded, row, column, accumulate ? 0.5F : 0.0F) : 0.5F;
      if (bf16 && native_bf16(table)) {
        // Half an ulp for each rounding of the chain, whose sums stay below 64 in this test.
        const double bound = 0x1p-24 * static_cast<double>(task.depth) * 64;
        ASSERT_NEAR(found, expected, bound) << "row " << row << ", column " << column;
      } else {
        ASSERT_EQ(found, expected) << "row " << row << ", column " << column;
      }
    }
  }
}

std::string trace(const KernelTable& table, Shape shape, const GemmMatrix& b, bool a_transposed,
                  bool b_transposed) {
  return std::string(table.isa) + " " + std::string(dtype_name(b.dtype)) +
         (b.packed ? " packed" : "") + " M " + std::to_string(shape.rows) + " N " +
         std::to_string(shape.columns) + " D " + std::to_string(shape.depth) +
         (a_transposed ? " A transposed" : "") + (b_transposed ? " B transposed" : "");
}

TEST(Gemm, EveryShapeOfNumbers) {
  constexpr Shape kShapes[] = {{1, 1, 1},     {1, 40, 7},   {5, 31, 33},
                               {6, 32, 16},   {7, 33, 257}, {13, 65, 20},
                               {12, 128, 64}, {3, 290, 24}, {26, 47, 515}};
  for (const KernelTable* table : available_kernels()) {
    for (const Shape shape : kShapes) {
      for (const int form : {0, 1, 2, 3, 4, 5, 6, 7}) {
        const bool a_transposed = (form & 1) != 0;
        const bool b_transposed = (form & 2) != 0;
        const Weights weights(DType::kF32, b_transposed ? shape.columns : shape.depth,
                              b_transposed ? shape.depth : shape.columns, (form & 4) != 0, 3);
        SCOPED_TRACE(trace(*table, shape, weights.matrix, a_transposed, b_transposed));
        check(*table, shape, a_transposed, weights, b_transposed, form % 3 == 0, 1);
        check(*table, shape, a_transposed, weights, b_transposed, form % 3 == 1, 3);
        check(*table, shape, a_transposed, weights, b_transposed, form % 3 == 2, 2, true);
        if (HasFatalFailure()) return;
      }
    }
  }
}

// Blocks lie along a weight's rows; the rows themselves may be any number.
TEST(Gemm, EveryTypeOfWeights) {
  for (const KernelTable* table : available_kernels()) {
    for (const DTypeInfo& info : all_dtypes()) {
      if (!takes_gemm(info.dtype, 16, 256)) continue;
      const std::int64_t along = info.block == 256 ? 512 : 288;
      for (const std::int64_t across : {std::int64_t{1}, std::int64_t{33}, std::int64_t{48}}) {
        for (const int form : {0, 1, 2, 3}) {
          const bool packed = (form & 1) != 0;
          const bool transposed = (form & 2) != 0;
          const Weights weights(info.dtype, across, along, packed, 9);
          const Shape shape{7, transposed ? across : along, transposed ? along : across};
          SCOPED_TRACE(trace(*table, shape, weights.matrix, false, transposed));
          check(*table, shape, false, weights, transposed, false, 2);
          check(*table, shape, false, weights, transposed, false, 1, true);
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

// Rows of a direction begin anywhere in a draw; the last one ends before a draw does.
TEST(Gemm, SignsAreDrawn) {
  const DirectionKey key{0x1234567890ABCDEF, 5, 2, 7};
  for (const KernelTable* table : available_kernels()) {
    for (const Shape shape : {Shape{1, 1, 1}, Shape{7, 33, 257}, Shape{13, 290, 96},
                              Shape{5, 47, 515}, Shape{3, 40, 576}}) {
      const Weights weights(key, shape.columns, shape.depth);
      SCOPED_TRACE(trace(*table, shape, weights.matrix, false, true));
      check(*table, shape, false, weights, true, true, 1);
      check(*table, shape, false, weights, true, false, 3);
      if (HasFatalFailure()) return;
    }
  }
}

TEST(Gemm, SharesCoverEverythingOnce) {
  for (const Shape shape : {Shape{1, 1, 1}, Shape{1024, 16, 576}, Shape{1024, 1536, 16},
                            Shape{37, 576, 8}, Shape{3, 70, 8}}) {
    for (const bool a_transposed : {false, true}) {
      for (int threads = 1; threads <= 7; ++threads) {
        GemmTask task;
        task.rows = shape.rows;
        task.columns = shape.columns;
        task.a_transposed = a_transposed;
        std::int64_t elements = 0;
        for (int thread = 0; thread < threads; ++thread) {
          set_gemm_share(task, thread, threads);
          EXPECT_EQ(task.first_column % kGemmGranule, 0);
          EXPECT_LE(task.first_row + task.row_count, shape.rows);
          EXPECT_LE(task.first_column + task.column_count, shape.columns);
          elements += task.row_count * task.column_count;
        }
        EXPECT_EQ(elements, shape.rows * shape.columns);
      }
    }
  }
}

}  // namespace
}  // namespace hone::kernels

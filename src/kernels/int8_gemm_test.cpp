// Codes and their products: every form, odd shapes, shares of threads; bit for bit, between guards.
// SPDX-License-Identifier: Apache-2.0
#include "kernels/int8_gemm.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "base/random.h"
#include "kernels/battery.h"

namespace hone::kernels {
namespace {

struct Shape {
  std::int64_t rows, columns, depth;
};

struct Operand {
  Guarded<std::int8_t> codes;
  Row scales;
  Int8Matrix matrix;

  // (rows, columns) as stored, rows a little apart. The extremes occur.
  Operand(std::int64_t rows, std::int64_t columns, bool transposed, std::int64_t kept, bool each,
          std::uint64_t seed)
      : codes(static_cast<std::size_t>((rows - 1) * (columns + 3) + columns)),
        scales(static_cast<std::size_t>(each ? kept : 1)) {
    Random random(seed);
    for (std::int8_t& code : codes.span()) {
      code = static_cast<std::int8_t>(static_cast<int>(random.below(255)) - 127);
    }
    for (float& scale : scales.span()) scale = 0.5F + random.uniform();
    matrix = {codes.view().data(), columns + 3, transposed, scales.view().data(), each};
  }

  int at(std::int64_t row, std::int64_t column) const {
    return codes[static_cast<std::size_t>(matrix.transposed ? column * matrix.stride + row
                                                            : row * matrix.stride + column)];
  }
  float scale(std::int64_t index) const {
    return scales[matrix.each ? static_cast<std::size_t>(index) : 0];
  }
};

void check(const KernelTable& table, Shape shape, bool a_transposed, bool b_transposed, bool each,
           int threads) {
  const Operand a(a_transposed ? shape.depth : shape.rows, a_transposed ? shape.rows : shape.depth,
                  a_transposed, shape.rows, each, 3);
  const Operand b(b_transposed ? shape.columns : shape.depth,
                  b_transposed ? shape.depth : shape.columns, b_transposed, shape.columns, each, 4);
  const std::int64_t stride = shape.columns + 5;
  Row c(static_cast<std::size_t>(stride * shape.rows));
  std::fill(c.span().begin(), c.span().end(), 0.5F);
  Guarded<std::byte> scratch(kInt8GemmScratchBytes, 0);
  Int8GemmTask task;
  task.rows = shape.rows;
  task.columns = shape.columns;
  task.depth = shape.depth;
  task.a = a.matrix;
  task.b = b.matrix;
  task.c = c.span().data();
  task.c_stride = stride;
  task.scratch = scratch;
  for (int thread = 0; thread < threads; ++thread) {
    set_int8_share(task, thread, threads);
    table.int8_gemm(task);
  }
  ASSERT_TRUE(c.intact());
  ASSERT_TRUE(scratch.intact());
  for (std::int64_t row = 0; row < shape.rows; ++row) {
    for (std::int64_t column = 0; column < stride; ++column) {
      float expected = 0.5F;
      if (column < shape.columns) {
        std::int64_t sum = 0;
        for (std::int64_t k = 0; k < shape.depth; ++k) sum += a.at(row, k) * b.at(k, column);
        expected = static_cast<float>(sum) * (a.scale(row) * b.scale(column));
      }
      ASSERT_EQ(c[static_cast<std::size_t>(row * stride + column)], expected)
          << "row " << row << ", column " << column;
    }
  }
}

TEST(Int8Gemm, EveryFormAndShape) {
  constexpr Shape kShapes[] = {{1, 1, 1},     {1, 40, 7},    {5, 31, 33},   {6, 32, 16},
                               {7, 33, 513},  {13, 65, 20},  {12, 128, 64}, {3, 290, 24},
                               {26, 47, 515}, {9, 17, 1100}, {4, 16, 512}};
  for (const KernelTable* table : available_kernels()) {
    for (const Shape shape : kShapes) {
      for (const int form : {0, 1, 2, 3, 4, 5, 6, 7}) {
        SCOPED_TRACE(std::string(table->isa) + " M " + std::to_string(shape.rows) + " N " +
                     std::to_string(shape.columns) + " D " + std::to_string(shape.depth) +
                     " form " + std::to_string(form));
        check(*table, shape, (form & 1) != 0, (form & 2) != 0, (form & 4) != 0, 1);
        check(*table, shape, (form & 1) != 0, (form & 2) != 0, (form & 4) != 0, 3);
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST(Int8Codes, RoundToNearest) {
  for_each_case([](const KernelTable& table, std::size_t size, std::size_t misaligned) {
    const Row x = random_row(size, -2.0F, 2.0F, 5, misaligned);
    float largest = 0;
    for (const float value : x.view()) largest = std::max(largest, std::abs(value));
    ASSERT_EQ(table.largest_magnitude(x), largest);
    if (size == 0) return;
    const float inverse = 127.0F / largest;
    Guarded<std::int8_t> codes(size, misaligned);
    table.int8_codes(x, inverse, codes);
    Row most(size, misaligned), inverses(size, misaligned), grid(size, misaligned);
    Guarded<std::int8_t> each(size, misaligned);
    std::fill(most.span().begin(), most.span().end(), 1.0F);
    table.largest_magnitudes(x, most);
    for (std::size_t i = 0; i < size; ++i) inverses[i] = 100.0F / most[i];
    table.int8_codes_each(x, inverses, each);
    table.round_to_grid(x, inverse, 0.25F, grid);
    for (std::size_t i = 0; i < size; ++i) {
      const float code = std::nearbyint(x[i] * inverse);
      ASSERT_EQ(codes[i], static_cast<int>(code));
      ASSERT_EQ(grid[i], code * 0.25F);
      ASSERT_EQ(most[i], std::max(1.0F, std::abs(x[i])));
      ASSERT_EQ(each[i], static_cast<int>(std::nearbyint(x[i] * inverses[i])));
    }
    ASSERT_TRUE(codes.intact() && most.intact() && each.intact() && grid.intact());
  });
}

}  // namespace
}  // namespace hone::kernels

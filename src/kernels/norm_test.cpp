// Row normalization against its definition in double.
// SPDX-License-Identifier: Apache-2.0
#include "kernels/battery.h"

namespace hone::kernels {
namespace {

constexpr float kNormEpsilon = 1e-5f;

// Four running vectors: each lane adds at most C / 4 squares in a row. A sum of positive terms is
// off by at most (terms in a row) * eps / 2 relatively; half of that reaches the root.
double norm_bound(std::size_t size) {
  return kEpsilon * (4.0 + 0.25 * static_cast<double>(size) / 4.0);
}

TEST(Norm, RmsNormMatchesDouble) {
  for_each_case([](const KernelTable& table, std::size_t size, std::size_t misaligned) {
    const Row x = random_row(size, -3.0f, 3.0f, 5, misaligned);
    const Row weight = random_row(size, 0.5f, 1.5f, 6, 1);
    Row out(size, misaligned);
    table.rms_norm(x, weight, kNormEpsilon, out);
    double squares = 0.0;
    for (std::size_t i = 0; i < size; ++i) squares += static_cast<double>(x[i]) * x[i];
    const double rms = std::sqrt(squares / static_cast<double>(size) + kNormEpsilon);
    for (std::size_t i = 0; i < size; ++i) {
      expect_close(out[i], x[i] / rms * weight[i], norm_bound(size), 0.0, i);
    }
    ASSERT_TRUE(out.intact());
    Row moved = random_row(size, -3.0f, 3.0f, 5, misaligned);
    table.rms_norm(moved, weight, kNormEpsilon, moved);
    for (std::size_t i = 0; i < size; ++i) ASSERT_EQ(moved[i], out[i]);
  });
}

TEST(Norm, RmsNormOfZerosIsZero) {
  for (const KernelTable* table : available_kernels()) {
    Row x(33), weight(33), out(33);
    for (std::size_t i = 0; i < 33; ++i) {
      x[i] = 0.0f;
      weight[i] = 1.0f;
    }
    table->rms_norm(x, weight, kNormEpsilon, out);
    for (const float value : out.span()) EXPECT_EQ(value, 0.0f);
  }
}

TEST(Norm, LayerNormMatchesDouble) {
  for_each_case([](const KernelTable& table, std::size_t size, std::size_t misaligned) {
    // A mean far from 0: a one-pass variance would cancel.
    const Row x = random_row(size, 9.0f, 11.0f, 7, misaligned);
    const Row weight = random_row(size, 0.5f, 1.5f, 8, 1);
    const Row bias = random_row(size, -1.0f, 1.0f, 9, 2);
    Row out(size, misaligned);
    table.layer_norm(x, weight, bias, kNormEpsilon, out);
    double mean = 0.0, variance = 0.0;
    for (std::size_t i = 0; i < size; ++i) mean += x[i];
    mean /= static_cast<double>(size);
    for (std::size_t i = 0; i < size; ++i) variance += (x[i] - mean) * (x[i] - mean);
    const double deviation = std::sqrt(variance / static_cast<double>(size) + kNormEpsilon);
    for (std::size_t i = 0; i < size; ++i) {
      const double expected = (x[i] - mean) / deviation * weight[i] + bias[i];
      // The mean's error (relative to 11) is divided by the deviation, down to sqrt(epsilon).
      const double absolute = norm_bound(size) * 11.0 / deviation + 2.0 * kEpsilon;
      expect_close(out[i], expected, norm_bound(size), absolute, i);
    }
    ASSERT_TRUE(out.intact());
  });
}

}  // namespace
}  // namespace hone::kernels

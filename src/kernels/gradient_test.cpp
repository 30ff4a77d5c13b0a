// Gradients of activations, softmax and norms against their definitions in double.
// SPDX-License-Identifier: Apache-2.0
#include <functional>

#include "kernels/battery.h"

namespace hone::kernels {
namespace {

constexpr float kNormEpsilon = 1e-5F;

using Pair = void (*)(std::span<const float> x, std::span<const float> dy, std::span<float> out);

// A kernel of pairs of elements; `absolute` times |dy|.
void check_pairs(Pair KernelTable::*kernel, float range, const std::function<double(double)>& slope,
                 double relative, double absolute) {
  for_each_case([&](const KernelTable& table, std::size_t size, std::size_t misaligned) {
    const Row x = random_row(size, -range, range, 1, misaligned);
    const Row dy = random_row(size, -2.0F, 2.0F, 2, 1);
    Row out(size, misaligned);
    (table.*kernel)(x, dy, out);
    for (std::size_t i = 0; i < size; ++i) {
      const double d = dy[i];
      expect_close(out[i], d * slope(x[i]), relative, absolute * std::abs(d), i);
    }
    ASSERT_TRUE(out.intact());
    Row moved = random_row(size, -2.0F, 2.0F, 2, misaligned);
    (table.*kernel)(x, moved, moved);
    for (std::size_t i = 0; i < size; ++i) ASSERT_EQ(moved[i], out[i]);
  });
}

// The slope crosses 0, where its two terms of size up to 1 cancel.
TEST(Gradient, SiluMatchesDouble) {
  const auto slope = [](double x) {
    const double s = 1.0 / (1.0 + std::exp(-x));
    return s + x * s * (1.0 - s);
  };
  check_pairs(&KernelTable::silu_gradient, 6.0F, slope, 8.0 * kEpsilon, 8.0 * kEpsilon);
  check_pairs(&KernelTable::silu_gradient, 200.0F, slope, 8.0 * kEpsilon, 200.0 * kEpsilon);
}

TEST(Gradient, GeluMatchesDouble) {
  const auto slope = [](double x) {
    const double s = 1.0 / (1.0 + std::exp(-1.5957691216057308 * (x + 0.044715 * x * x * x)));
    return s + x * s * (1.0 - s) * 1.5957691216057308 * (1.0 + 3.0 * 0.044715 * x * x);
  };
  check_pairs(&KernelTable::gelu_tanh_gradient, 6.0F, slope, 16.0 * kEpsilon, 16.0 * kEpsilon);
  check_pairs(
      &KernelTable::gelu_tanh_gradient, 1e25F, [](double x) { return x > 0 ? 1.0 : 0.0; }, 0.0,
      1e-12);
}

TEST(Gradient, TanhCapMatchesDouble) {
  for_each_case([](const KernelTable& table, std::size_t size, std::size_t misaligned) {
    const Row y = random_row(size, -30.0F, 30.0F, 3, misaligned);
    const Row dy = random_row(size, -2.0F, 2.0F, 4, 1);
    Row out(size, misaligned);
    table.tanh_cap_gradient(y, dy, 30.0F, out);
    for (std::size_t i = 0; i < size; ++i) {
      const double t = y[i] / 30.0;
      expect_close(out[i], dy[i] * (1.0 - t * t), 2.0 * kEpsilon, 2.0 * kEpsilon * std::abs(dy[i]),
                   i);
    }
    ASSERT_TRUE(out.intact());
  });
}

// One running vector: a lane adds a C-th of the products, or all on the plain set.
double sum_bound(std::size_t size) { return kEpsilon * (4.0 + static_cast<double>(size) / 8.0); }

TEST(Gradient, SoftmaxMatchesDouble) {
  for_each_case([](const KernelTable& table, std::size_t size, std::size_t misaligned) {
    Row y = random_row(size, 0.0F, 2.0F, 5, misaligned);
    for (float& value : y.span()) value /= static_cast<float>(size);
    const Row dy = random_row(size, -2.0F, 2.0F, 6, 1);
    Row out(size, misaligned);
    table.softmax_gradient(y, dy, out);
    double dot = 0.0;
    for (std::size_t i = 0; i < size; ++i) dot += static_cast<double>(y[i]) * dy[i];
    for (std::size_t i = 0; i < size; ++i) {
      // The products' sizes add up to 2 at most.
      expect_close(out[i], y[i] * (dy[i] - dot), 2.0 * kEpsilon, y[i] * 2.0 * sum_bound(size), i);
    }
    ASSERT_TRUE(out.intact());
  });
}

struct Moments {
  double mean = 0.0, inverse = 0.0;
};

Moments moments_of(const Row& x, bool centered) {
  Moments m;
  const auto count = static_cast<double>(x.size());
  for (std::size_t i = 0; centered && i < x.size(); ++i) m.mean += x[i] / count;
  double squares = 0.0;
  for (std::size_t i = 0; i < x.size(); ++i) squares += (x[i] - m.mean) * (x[i] - m.mean);
  m.inverse = 1.0 / std::sqrt(squares / count + kNormEpsilon);
  return m;
}

// Weights far from 1, as trained ones are.
void check_norm(bool centered) {
  for_each_case([centered](const KernelTable& table, std::size_t size, std::size_t misaligned) {
    if (size < 2) return;  // a centered row of one element is all rounding
    const Row x = random_row(size, -2.0F, 3.0F, 7, misaligned);
    const Row weight = random_row(size, -4.0F, 4.0F, 8, 1);
    const Row dy = random_row(size, -1.0F, 1.0F, 9, 2);
    Row out(size, misaligned);
    (centered ? table.layer_norm_gradient : table.rms_norm_gradient)(x, weight, dy, kNormEpsilon,
                                                                     out);
    const Moments m = moments_of(x, centered);
    const auto count = static_cast<double>(size);
    double mean = 0.0, along = 0.0, largest = 1.0;
    const auto h = [&](std::size_t i) { return (x[i] - m.mean) * m.inverse; };
    for (std::size_t i = 0; i < size; ++i) {
      const double g = static_cast<double>(dy[i]) * weight[i];
      if (centered) mean += g / count;
      along += g * h(i) / count;
      largest = std::max(largest, std::abs(h(i)));
    }
    for (std::size_t i = 0; i < size; ++i) {
      const double g = static_cast<double>(dy[i]) * weight[i];
      // Terms of 4 and of 4 h^2, each with the error of a mean.
      const double bound = m.inverse * 4.0 * (1.0 + largest * largest) * sum_bound(size);
      expect_close(out[i], m.inverse * (g - mean - h(i) * along), 0.0, bound, i);
    }
    ASSERT_TRUE(out.intact());
    const RowMoments found = table.row_moments(x, centered, kNormEpsilon);
    EXPECT_NEAR(found.mean, m.mean, 3.0 * sum_bound(size));
    EXPECT_NEAR(found.inverse, m.inverse, m.inverse * sum_bound(size));
    Row sum = random_row(size, -1.0F, 1.0F, 10, misaligned);
    const Row before = random_row(size, -1.0F, 1.0F, 10, misaligned);
    table.add_normalized(x, found, dy, sum);
    for (std::size_t i = 0; i < size; ++i) {
      const double expected = before[i] + dy[i] * (x[i] - double{found.mean}) * found.inverse;
      expect_close(sum[i], expected, 2.0 * kEpsilon, 4.0 * kEpsilon * (1.0 + std::abs(h(i))), i);
    }
    ASSERT_TRUE(sum.intact());
  });
}

TEST(Gradient, RmsNormMatchesDouble) { check_norm(false); }
TEST(Gradient, LayerNormMatchesDouble) { check_norm(true); }

}  // namespace
}  // namespace hone::kernels

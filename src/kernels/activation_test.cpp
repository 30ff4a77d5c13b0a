// Activations against double: bounds in units of f32 rounding, special values, guard words.
// SPDX-License-Identifier: Apache-2.0
#include <functional>

#include "kernels/battery.h"

namespace hone::kernels {
namespace {

double silu(double x) { return x / (1.0 + std::exp(-x)); }
double gelu_tanh(double x) {
  return 0.5 * x * (1.0 + std::tanh(std::sqrt(2.0 / M_PI) * (x + 0.044715 * x * x * x)));
}
double gelu_erf(double x) { return 0.5 * x * std::erfc(-x / std::sqrt(2.0)); }

// silu: exponential, sum, quotient: 4 eps relatively. The argument of gelu_tanh's exponential is
// rounded (2 eps of up to 88), which the tail multiplies: relative to |x| that stays below 2 eps.
// Results below 2^-126 may be flushed: 1e-36 of x counts as 0.
constexpr double kSiluRelative = 4 * kEpsilon;
constexpr double kGeluOfX = 3 * kEpsilon;
constexpr double kGeluErfRelative = 8 * kEpsilon;
constexpr double kTanhRelative = 4 * kEpsilon;
constexpr double kFlushed = 1e-36;

using Unary = void (*)(std::span<const float>, std::span<float>);
using Binary = void (*)(std::span<const float>, std::span<const float>, std::span<float>);

void check_unary(Unary kernel, const std::function<double(double)>& expected, double relative,
                 double of_x, std::size_t size, std::size_t misaligned) {
  for (const float range : {1.0f, 12.0f, 200.0f}) {
    const Row x = random_row(size, -range, range, 12, misaligned);
    Row out(size, misaligned);
    kernel(x, out);
    for (std::size_t i = 0; i < size; ++i) {
      expect_close(out[i], expected(x[i]), relative, (of_x + kFlushed) * std::abs(x[i]), i);
    }
    ASSERT_TRUE(out.intact());
  }
}

void check_gated(Binary kernel, Unary alone, std::size_t size, std::size_t misaligned) {
  const Row gate = random_row(size, -9.0f, 9.0f, 13, misaligned);
  const Row up = random_row(size, -2.0f, 2.0f, 14, 1);
  Row out(size, misaligned), single(size, 0);
  kernel(gate, up, out);
  alone(gate, single);
  for (std::size_t i = 0; i < size; ++i) ASSERT_EQ(out[i], single[i] * up[i]);
  ASSERT_TRUE(out.intact());
}

TEST(Activation, MatchesDouble) {
  for_each_case([](const KernelTable& table, std::size_t size, std::size_t misaligned) {
    check_unary(table.silu, silu, kSiluRelative, 0.0, size, misaligned);
    check_unary(table.gelu_tanh, gelu_tanh, kSiluRelative, kGeluOfX, size, misaligned);
    check_unary(table.gelu_erf, gelu_erf, kGeluErfRelative, 0.0, size, misaligned);
    check_unary(
        table.relu, [](double x) { return x > 0.0 ? x : 0.0; }, 0.0, 0.0, size, misaligned);
  });
}

TEST(Activation, GatedIsTheSameTimesUp) {
  for_each_case([](const KernelTable& table, std::size_t size, std::size_t misaligned) {
    check_gated(table.silu_mul, table.silu, size, misaligned);
    check_gated(table.gelu_tanh_mul, table.gelu_tanh, size, misaligned);
    check_gated(table.gelu_erf_mul, table.gelu_erf, size, misaligned);
  });
}

TEST(Activation, TanhCapMatchesDouble) {
  for_each_case([](const KernelTable& table, std::size_t size, std::size_t misaligned) {
    for (const float cap : {1.0f, 30.0f, 50.0f}) {
      const Row x = random_row(size, -90.0f, 90.0f, 15, misaligned);
      Row out(size, misaligned);
      table.tanh_cap(x, cap, out);
      for (std::size_t i = 0; i < size; ++i) {
        expect_close(out[i], cap * std::tanh(static_cast<double>(x[i]) / cap), kTanhRelative, 0.0,
                     i);
      }
      ASSERT_TRUE(out.intact());
    }
  });
}

TEST(Activation, SpecialValues) {
  const float infinity = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const KernelTable* table : available_kernels()) {
    SCOPED_TRACE(table->isa);
    for (const Unary kernel : {table->silu, table->gelu_tanh, table->gelu_erf, table->relu}) {
      Row x(19), out(19);
      for (float& value : x.span()) value = 0.0f;
      x[0] = 1e30f;
      x[1] = -1e30f;
      x[2] = nan;
      x[3] = infinity;
      x[4] = 1e-30f;
      kernel(x, out);
      EXPECT_EQ(out[0], 1e30f);
      EXPECT_LE(std::abs(out[1]), 1e-6f);
      EXPECT_TRUE(std::isnan(out[2]));
      EXPECT_EQ(out[5], 0.0f);
    }
    Row x(3), out(3);
    x[0] = infinity;
    x[1] = -infinity;
    x[2] = nan;
    table->tanh_cap(x, 30.0f, out);
    EXPECT_EQ(out[0], 30.0f);
    EXPECT_EQ(out[1], -30.0f);
    EXPECT_TRUE(std::isnan(out[2]));
  }
}

}  // namespace
}  // namespace hone::kernels

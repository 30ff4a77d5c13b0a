// Linear algebra of the matrix rules, and what measures weights.
// SPDX-License-Identifier: Apache-2.0
#include "optim/measure.h"

#include <cmath>

#include "optim/battery.h"
#include "optim/linear.h"
#include "optim/sums.h"

namespace hone::optim {
namespace {

std::vector<float> product_of(const std::vector<float>& a, const std::vector<float>& b,
                              std::size_t m, std::size_t k, std::size_t n) {
  std::vector<float> out(m * n);
  for (std::size_t i = 0; i < m; ++i) {
    for (std::size_t j = 0; j < n; ++j) {
      double sum = 0.0;
      for (std::size_t l = 0; l < k; ++l) sum += static_cast<double>(a[i * k + l]) * b[l * n + j];
      out[i * n + j] = static_cast<float>(sum);
    }
  }
  return out;
}

std::vector<float> transposed(const std::vector<float>& x, std::size_t rows, std::size_t columns) {
  std::vector<float> out(x.size());
  for (std::size_t i = 0; i < rows; ++i) {
    for (std::size_t j = 0; j < columns; ++j) out[j * rows + i] = x[i * columns + j];
  }
  return out;
}

TEST(Linear, ProductsAtOddSizes) {
  Multiplier multiply;
  for (const auto& [m, k, n] :
       {std::array<std::size_t, 3>{1, 1, 1}, {3, 130, 5}, {7, 64, 1029}, {65, 2, 33}}) {
    const auto a = random_values(m * k, 1), b = random_values(k * n, 2);
    const auto a_turned = transposed(a, m, k), b_turned = transposed(b, k, n);
    const auto im = static_cast<std::int64_t>(m), ik = static_cast<std::int64_t>(k),
               in = static_cast<std::int64_t>(n);
    const auto expected = product_of(a, b, m, k, n);
    // k terms of normal numbers: k roundings of at most sqrt(k) times a few.
    const double allowed =
        static_cast<double>(k) * 0x1p-24 * 8.0 * std::sqrt(static_cast<double>(k));
    for (const bool turn_a : {false, true}) {
      for (const bool turn_b : {false, true}) {
        std::vector<float> out(m * n);
        multiply(turn_a ? turned({a_turned, ik, im}) : Matrix{a, im, ik},
                 turn_b ? turned({b_turned, in, ik}) : Matrix{b, ik, in}, out);
        for (std::size_t i = 0; i < out.size(); ++i) ASSERT_NEAR(out[i], expected[i], allowed);
      }
    }
  }
}

void expect_eigen(const std::vector<double>& matrix, std::size_t n) {
  const Eigen eigen = symmetric_eigen(matrix, static_cast<std::int64_t>(n));
  double size = 0.0;
  for (const double value : matrix) size = std::max(size, std::abs(value));
  const double allowed = 1e-13 * static_cast<double>(n) * size + 1e-300;
  for (std::size_t k = 0; k + 1 < n; ++k) EXPECT_GE(eigen.values[k], eigen.values[k + 1]);
  for (std::size_t k = 0; k < n; ++k) {
    const double* v = eigen.vectors.data() + k * n;
    for (std::size_t i = 0; i < n; ++i) {
      double sum = 0.0;
      for (std::size_t j = 0; j < n; ++j) sum += matrix[i * n + j] * v[j];
      ASSERT_NEAR(sum, eigen.values[k] * v[i], allowed) << "vector " << k;
    }
    for (std::size_t l = 0; l <= k; ++l) {
      double sum = 0.0;
      for (std::size_t j = 0; j < n; ++j) sum += v[j] * eigen.vectors[l * n + j];
      ASSERT_NEAR(sum, k == l ? 1.0 : 0.0, 1e-13 * static_cast<double>(n));
    }
  }
}

TEST(Linear, EigenvectorsOfSymmetricMatrices) {
  for (const std::size_t n : {1u, 2u, 3u, 4u, 17u, 64u, 130u}) {
    SCOPED_TRACE(n);
    const auto random = random_values(n * n, n);
    std::vector<double> symmetric(n * n), low_rank(n * n), diagonal(n * n, 0.0), same(n * n, 0.0);
    for (std::size_t i = 0; i < n; ++i) {
      for (std::size_t j = 0; j < n; ++j) {
        symmetric[i * n + j] = static_cast<double>(random[i * n + j]) + random[j * n + i];
        low_rank[i * n + j] = static_cast<double>(random[i]) * random[j];
      }
      diagonal[i * n + i] = std::pow(10.0, -static_cast<double>(i % 20));
      same[i * n + i] = 3.0;
    }
    expect_eigen(symmetric, n);
    expect_eigen(low_rank, n);
    expect_eigen(diagonal, n);
    expect_eigen(same, n);
    expect_eigen(std::vector<double>(n * n, 0.0), n);
  }
}

TEST(Linear, RowsBecomeOrthonormal) {
  constexpr std::size_t kSize = 24;
  const auto random = random_values(kSize * kSize, 5);
  std::vector<double> x(random.begin(), random.end());
  // Rows that depend on others, nearly and wholly, and one of zeros.
  for (std::size_t j = 0; j < kSize; ++j) {
    x[3 * kSize + j] = x[2 * kSize + j] * (1.0 + 1e-9 * static_cast<double>(j));
    x[7 * kSize + j] = x[1 * kSize + j];
    x[9 * kSize + j] = 0.0;
  }
  orthonormalize_rows(x, kSize);
  for (std::size_t i = 0; i < kSize; ++i) {
    for (std::size_t k = 0; k <= i; ++k) {
      double sum = 0.0;
      for (std::size_t j = 0; j < kSize; ++j) sum += x[i * kSize + j] * x[k * kSize + j];
      EXPECT_NEAR(sum, i == k ? 1.0 : 0.0, 1e-12) << i << ", " << k;
    }
  }
}

// Rows r of a matrix of given singular values: diag(s) between two bases.
std::vector<float> with_singular_values(const std::vector<double>& s, std::size_t rows,
                                        std::size_t columns) {
  const auto basis = [](std::size_t n, std::uint64_t seed) {
    const auto random = random_values(n * n, seed);
    std::vector<double> q(random.begin(), random.end());
    orthonormalize_rows(q, static_cast<std::int64_t>(n));
    return q;
  };
  const auto u = basis(rows, 1), v = basis(columns, 2);
  std::vector<float> out(rows * columns);
  for (std::size_t i = 0; i < rows; ++i) {
    for (std::size_t j = 0; j < columns; ++j) {
      double sum = 0.0;
      for (std::size_t k = 0; k < s.size(); ++k) {
        sum += s[k] * u[k * rows + i] * v[k * columns + j];
      }
      out[i * columns + j] = static_cast<float>(sum);
    }
  }
  return out;
}

TEST(Measure, NormsAndRanksOfKnownMatrices) {
  for (const auto& [rows, columns] : {std::pair{12, 30}, std::pair{30, 12}}) {
    const Shape2 shape{rows, columns};
    const auto r = static_cast<std::size_t>(rows), c = static_cast<std::size_t>(columns);
    const auto one = with_singular_values({5.0}, r, c);
    EXPECT_NEAR(spectral_norm(one, shape), 5.0, 1e-5);
    EXPECT_NEAR(stable_rank(one, shape), 1.0, 1e-5);
    EXPECT_NEAR(effective_rank(one, shape), 1.0, 1e-3);
    const auto three = with_singular_values({2.0, 2.0, 2.0}, r, c);
    EXPECT_NEAR(stable_rank(three, shape), 3.0, 1e-4);
    EXPECT_NEAR(effective_rank(three, shape), 3.0, 1e-3);
    const auto falling = with_singular_values({4.0, 2.0, 1.0}, r, c);
    EXPECT_NEAR(spectral_norm(falling, shape), 4.0, 1e-4);
    EXPECT_NEAR(stable_rank(falling, shape), 21.0 / 16.0, 1e-4);
    // exp of the entropy of 4/7, 2/7, 1/7
    EXPECT_NEAR(effective_rank(falling, shape), std::exp(0.9557), 2e-3);
    const std::vector<float> zeros(r * c, 0.0f);
    EXPECT_EQ(spectral_norm(zeros, shape), 0.0);
    EXPECT_EQ(stable_rank(zeros, shape), 0.0);
    EXPECT_EQ(effective_rank(zeros, shape), 0.0);
  }
}

TEST(Measure, BoxAndSparsity) {
  const std::vector<float> weights = {0.0f, 0.5f, -2.0f, 1.99f};
  const Box box = box_of(weights, 0.5);
  EXPECT_DOUBLE_EQ(box.largest, 2.0);
  EXPECT_DOUBLE_EQ(box.share, 1.0);
  EXPECT_DOUBLE_EQ(box.at_border, 0.5);
  EXPECT_DOUBLE_EQ(sparsity(weights, 1e-3), 0.25);
  EXPECT_DOUBLE_EQ(sparsity(weights, 0.5), 0.5);
  EXPECT_DOUBLE_EQ(box_of({}, 0.5).share, 0.0);
}

// Muon's whole point: a step whose singular values are all near 1.
TEST(Measure, MuonStepsAreNearlyOrthogonal) {
  for (const Shape2 shape : {Shape2{16, 40}, Shape2{40, 16}}) {
    // Condition 100: five iterations lift 0.01 of the norm to about 1.
    std::vector<double> values;
    for (int i = 0; i < 16; ++i) values.push_back(std::pow(100.0, -i / 15.0));
    const auto gradient = with_singular_values(values, static_cast<std::size_t>(shape.rows),
                                               static_cast<std::size_t>(shape.columns));
    Stepped tensor({find_rule("muon"), "scale=original"}, shape,
                   std::vector<float>(gradient.size(), 0.0f));
    tensor.step(gradient, 1.0);
    const double scale = std::sqrt(
        std::max(1.0, static_cast<double>(shape.rows) / static_cast<double>(shape.columns)));
    EXPECT_LT(spectral_norm(tensor.weights, shape) / scale, 1.25);
    EXPECT_GT(stable_rank(tensor.weights, shape), 9.0);
    EXPECT_LT(stable_rank(gradient, shape), 3.0);
  }
}

}  // namespace
}  // namespace hone::optim

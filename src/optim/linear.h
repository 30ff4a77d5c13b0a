// Small dense linear algebra for the matrix rules: products, symmetric eigenvectors, bases.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace hone::optim {

// Row-major numbers, read as they lie or turned.
struct Matrix {
  std::span<const float> values;
  std::int64_t rows = 0;  // as stored
  std::int64_t columns = 0;
  bool turned = false;  // its transpose is meant
};
inline Matrix turned(Matrix x) {
  x.turned = !x.turned;
  return x;
}

// Products of matrices, with the memory that the kernel works in. Each element is one chain of f32
// fused multiply-adds in the order of the depth: the same bits on every instruction set.
class Multiplier {
 public:
  Multiplier();
  // out (M, N) = a (M, K) times b (K, N).
  void operator()(const Matrix& a, const Matrix& b, std::span<float> out);
  static std::size_t bytes();

 private:
  std::vector<std::byte> scratch_;
};

// In double, of equal lengths.
double dot(std::span<const double> x, std::span<const double> y);
void add_multiple(double a, std::span<const double> x, std::span<double> y);  // y += a x

// A symmetric matrix = sum over i of values[i] v_i v_i^T.
struct Eigen {
  std::vector<double> values;   // (N), the largest first
  std::vector<double> vectors;  // (N, N): row i is v_i, of length 1
};
// Householder's tridiagonal form and implicit QR steps with Wilkinson's shift (Golub & Van Loan
// 2013, algorithms 8.3.1 to 8.3.3), about 10 N^3 operations in double.
Eigen symmetric_eigen(std::vector<double> matrix, std::int64_t n);
Eigen symmetric_eigen(std::span<const float> matrix, std::int64_t n);

// Memory that symmetric_eigen takes, its result included.
std::size_t eigen_bytes(std::int64_t n);

// Makes the rows of x (N, N) orthonormal in their order, by Gram-Schmidt twice in double (twice is
// enough: Giraud et al. 2005). A row that depends on those before it becomes an arbitrary one.
void orthonormalize_rows(std::vector<double>& x, std::int64_t n);

}  // namespace hone::optim

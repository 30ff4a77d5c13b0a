// SPDX-License-Identifier: Apache-2.0
#include "optim/linear.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <numeric>

#include "kernels/gemm.h"
#include "kernels/registry.h"

namespace hone::optim {
namespace {

double dot(const double* x, const double* y, std::int64_t n) {
  double sums[4] = {};
  std::int64_t i = 0;
  for (; i + 4 <= n; i += 4) {
    for (int j = 0; j < 4; ++j) sums[j] += x[i + j] * y[i + j];
  }
  for (; i < n; ++i) sums[0] += x[i] * y[i];
  return (sums[0] + sums[2]) + (sums[1] + sums[3]);
}

// y += a x
void add_multiple(double a, const double* x, double* y, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) y[i] += a * x[i];
}

struct Tridiagonal {
  std::vector<double> diagonal;  // (N)
  std::vector<double> beside;    // (N), the last unused
  std::vector<double> basis;     // (N, N): rows are the columns of Q, matrix = Q T Q^T
};

// a (N, N) is used up. Reflection k, 1 - factor v v^T, acts on the elements behind k; v is kept in
// row k of a, where the matrix has no use for it any more.
Tridiagonal tridiagonal_of(std::vector<double>& a, std::int64_t n) {
  Tridiagonal t{std::vector<double>(static_cast<std::size_t>(n), 0.0),
                std::vector<double>(static_cast<std::size_t>(n), 0.0),
                std::vector<double>(static_cast<std::size_t>(n * n), 0.0)};
  std::vector<double> factors(static_cast<std::size_t>(n), 0.0);
  std::vector<double> w(static_cast<std::size_t>(n), 0.0);
  for (std::int64_t k = 0; k + 2 < n; ++k) {
    double* v = a.data() + k * n + k + 1;  // by symmetry the column below the diagonal
    const std::int64_t size = n - k - 1;
    const double norm = std::sqrt(dot(v, v, size));
    t.diagonal[k] = a[k * n + k];
    if (norm == 0.0) continue;
    const double alpha = v[0] > 0.0 ? -norm : norm;
    t.beside[k] = alpha;
    v[0] -= alpha;
    const double factor = 2.0 / dot(v, v, size);
    factors[k] = factor;
    for (std::int64_t i = 0; i < size; ++i) {
      w[i] = factor * dot(a.data() + (k + 1 + i) * n + k + 1, v, size);
    }
    add_multiple(-0.5 * factor * dot(w.data(), v, size), v, w.data(), size);
    for (std::int64_t i = 0; i < size; ++i) {
      double* row = a.data() + (k + 1 + i) * n + k + 1;
      const double vi = v[i], wi = w[i];
      for (std::int64_t j = 0; j < size; ++j) row[j] -= vi * w[j] + wi * v[j];
    }
  }
  if (n >= 2) {
    t.diagonal[n - 2] = a[(n - 2) * n + n - 2];
    t.beside[n - 2] = a[(n - 2) * n + n - 1];
  }
  if (n >= 1) t.diagonal[n - 1] = a[n * n - 1];
  // Q = H_0 (H_1 (… 1)), then its transpose.
  std::vector<double>& q = t.basis;
  for (std::int64_t i = 0; i < n; ++i) q[i * n + i] = 1.0;
  for (std::int64_t k = n - 3; k >= 0; --k) {
    const double* v = a.data() + k * n + k + 1;
    const std::int64_t size = n - k - 1;
    std::fill(w.begin(), w.end(), 0.0);
    for (std::int64_t i = 0; i < size; ++i) {
      add_multiple(v[i], q.data() + (k + 1 + i) * n + k + 1, w.data(), size);
    }
    for (std::int64_t i = 0; i < size; ++i) {
      add_multiple(-factors[k] * v[i], w.data(), q.data() + (k + 1 + i) * n + k + 1, size);
    }
  }
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t j = 0; j < i; ++j) std::swap(q[i * n + j], q[j * n + i]);
  }
  return t;
}

// One implicit QR step on the rows low … high of the tridiagonal matrix.
void qr_step(Tridiagonal& t, std::int64_t n, std::int64_t low, std::int64_t high) {
  std::vector<double>& d = t.diagonal;
  std::vector<double>& e = t.beside;
  const double half = (d[high - 1] - d[high]) / 2.0;
  const double last = e[high - 1] * e[high - 1];
  const double root = std::copysign(std::hypot(half, e[high - 1]), half);
  double x = d[low] - (d[high] - last / (half + root));
  double z = e[low];
  for (std::int64_t k = low; k < high; ++k) {
    const double r = std::hypot(x, z);
    const double c = r == 0.0 ? 1.0 : x / r, s = r == 0.0 ? 0.0 : z / r;
    if (k > low) e[k - 1] = r;
    const double above = d[k], between = e[k], below = d[k + 1];
    d[k] = c * c * above + 2.0 * c * s * between + s * s * below;
    d[k + 1] = s * s * above - 2.0 * c * s * between + c * c * below;
    e[k] = (c * c - s * s) * between + c * s * (below - above);
    if (k + 1 < high) {
      x = e[k];
      z = s * e[k + 1];
      e[k + 1] *= c;
    }
    double* first = t.basis.data() + k * n;
    double* second = first + n;
    for (std::int64_t j = 0; j < n; ++j) {
      const double a = first[j], b = second[j];
      first[j] = c * a + s * b;
      second[j] = c * b - s * a;
    }
  }
}

void diagonalize(Tridiagonal& t, std::int64_t n) {
  constexpr double kEpsilon = std::numeric_limits<double>::epsilon();
  std::int64_t high = n - 1;
  // Two or three steps a value are usual; the bound is for values that are not finite.
  for (std::int64_t round = 0; high > 0 && round < 60 * n; ++round) {
    for (std::int64_t k = 0; k < high; ++k) {
      const double size = std::abs(t.diagonal[k]) + std::abs(t.diagonal[k + 1]);
      if (std::abs(t.beside[k]) <= kEpsilon * size) t.beside[k] = 0.0;
    }
    while (high > 0 && t.beside[high - 1] == 0.0) --high;
    if (high == 0) break;
    std::int64_t low = high - 1;
    while (low > 0 && t.beside[low - 1] != 0.0) --low;
    qr_step(t, n, low, high);
  }
}

}  // namespace

double dot(std::span<const double> x, std::span<const double> y) {
  return dot(x.data(), y.data(), std::ssize(x));
}

void add_multiple(double a, std::span<const double> x, std::span<double> y) {
  add_multiple(a, x.data(), y.data(), std::ssize(x));
}

// 64 bytes more than the kernel asks for, so that its part can be aligned.
Multiplier::Multiplier() : scratch_(bytes()) {}

std::size_t Multiplier::bytes() { return kernels::kGemmScratchBytes + 64; }

void Multiplier::operator()(const Matrix& a, const Matrix& b, std::span<float> out) {
  void* aligned = scratch_.data();
  std::size_t space = scratch_.size();
  std::align(64, kernels::kGemmScratchBytes, aligned, space);
  kernels::GemmTask task;
  task.rows = a.turned ? a.columns : a.rows;
  task.depth = a.turned ? a.rows : a.columns;
  task.columns = b.turned ? b.rows : b.columns;
  task.a = a.values.data();
  task.a_stride = static_cast<std::size_t>(a.columns);
  task.a_transposed = a.turned;
  task.b = {
      .dtype = DType::kF32, .rows = b.rows, .columns = b.columns, .bytes = std::as_bytes(b.values)};
  task.b_transposed = b.turned;
  task.c = out.data();
  task.c_stride = static_cast<std::size_t>(task.columns);
  task.scratch = {static_cast<std::byte*>(aligned), kernels::kGemmScratchBytes};
  kernels::set_gemm_share(task, 0, 1);
  kernels::kernels().gemm_f32(task);
}

Eigen symmetric_eigen(std::span<const float> matrix, std::int64_t n) {
  return symmetric_eigen(std::vector<double>(matrix.begin(), matrix.end()), n);
}

Eigen symmetric_eigen(std::vector<double> matrix, std::int64_t n) {
  Tridiagonal t = tridiagonal_of(matrix, n);
  diagonalize(t, n);
  std::vector<std::size_t> order(static_cast<std::size_t>(n));
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&t](std::size_t x, std::size_t y) { return t.diagonal[x] > t.diagonal[y]; });
  Eigen eigen{{}, std::move(matrix)};
  for (std::size_t i = 0; i < order.size(); ++i) {
    eigen.values.push_back(t.diagonal[order[i]]);
    std::copy_n(t.basis.data() + order[i] * static_cast<std::size_t>(n), n,
                eigen.vectors.data() + i * static_cast<std::size_t>(n));
  }
  return eigen;
}

std::size_t eigen_bytes(std::int64_t n) {
  return static_cast<std::size_t>(2 * n * n + 5 * n) * sizeof(double);
}

void orthonormalize_rows(std::vector<double>& x, std::int64_t n) {
  std::int64_t spare = 0;  // the next unit vector to try for a row that vanished
  for (std::int64_t i = 0; i < n; ++i) {
    double* row = x.data() + i * n;
    double before = std::sqrt(dot(row, row, n));
    while (true) {
      for (int pass = 0; pass < 2; ++pass) {
        for (std::int64_t j = 0; j < i; ++j) {
          const double* other = x.data() + j * n;
          add_multiple(-dot(row, other, n), other, row, n);
        }
      }
      const double norm = std::sqrt(dot(row, row, n));
      if (norm > 1e-10 * before) {
        for (std::int64_t k = 0; k < n; ++k) row[k] /= norm;
        break;
      }
      if (spare == n) break;  // not finite
      std::fill_n(row, n, 0.0);
      row[spare++] = 1.0;
      before = 1.0;
    }
  }
}

}  // namespace hone::optim

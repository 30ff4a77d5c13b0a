// SOAP: Adam in the eigenbasis of Shampoo's second moments.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <vector>

#include "optim/adam_step.h"
#include "optim/linear.h"
#include "optim/rule.h"
#include "optim/sides.h"
#include "optim/state.h"

namespace hone::optim {
namespace {

constexpr std::array kDefaults = {
    decay("beta1", 0.95, "Vyas et al. 2024, section 5"),
    decay("beta2", 0.95, "Vyas et al. 2024, section 5"),
    decay("side_beta", 0.95, "Vyas et al. 2024, algorithm 3: beta2, for L and R"),
    number("epsilon", 1e-8, "Vyas et al. 2024, section 5"),
    whole_number("every", 10, "Vyas et al. 2024, section 5: steps between new bases", 1),
    whole_number("limit", 1024, "own choice (paper 10,000): a longer side keeps its basis", 1),
};

struct State {
  std::uint64_t& steps;                 // gradients seen, that of the bases among them
  std::span<float> mean;                // (R, C)
  std::span<float> second;              // (R, C), in the basis
  std::span<float> left, left_basis;    // (R, R); rows of a basis are its vectors
  std::span<float> right, right_basis;  // (C, C)
};

State parts_of(std::span<std::byte> bytes, Shape2 shape, Sides sides) {
  StateParts parts(bytes);
  std::uint64_t& steps = parts.counter();
  const auto mean = parts.floats(shape.elements());
  const auto second = parts.floats(shape.elements());
  const auto left = parts.floats(sides.rows * sides.rows);
  const auto left_basis = parts.floats(sides.rows * sides.rows);
  const auto right = parts.floats(sides.columns * sides.columns);
  const auto right_basis = parts.floats(sides.columns * sides.columns);
  return {steps, mean, second, left, left_basis, right, right_basis};
}

std::size_t state_bytes(Shape2 shape, const Settings& settings) {
  const Sides sides = sides_of(shape, settings);
  if (sides.count() == 0) return adam_state_bytes(shape);
  return sizeof(std::uint64_t) + float_bytes(2 * shape.elements() + 2 * sides.rows * sides.rows +
                                             2 * sides.columns * sides.columns);
}

std::size_t scratch_bytes(Shape2 shape, const Settings& settings) {
  const Sides sides = sides_of(shape, settings);
  if (sides.count() == 0) return 0;
  return sides_scratch_bytes(shape, sides) + float_bytes(2 * shape.elements());
}

void first_basis(std::span<const float> matrix, std::span<float> basis, std::int64_t n) {
  if (n == 0) return;
  const Eigen eigen = symmetric_eigen(matrix, n);
  std::transform(eigen.vectors.begin(), eigen.vectors.end(), basis.begin(),
                 [](double value) { return static_cast<float>(value); });
}

// One power iteration and a QR decomposition (algorithm 4). Returns the order in which the old
// vectors went into it: by their share of the matrix, the largest first.
std::vector<std::size_t> next_basis(std::span<const float> matrix, std::span<float> basis,
                                    std::int64_t n) {
  std::vector<float> product(basis.size());
  Multiplier()({basis, n, n}, {matrix, n, n}, product);
  std::vector<double> shares(static_cast<std::size_t>(n), 0.0);
  double trace = 0.0;
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t j = 0; j < n; ++j) {
      shares[i] += static_cast<double>(product[i * n + j]) * basis[i * n + j];
    }
    trace += matrix[i * n + i];
  }
  std::vector<std::size_t> order(static_cast<std::size_t>(n));
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&shares](std::size_t x, std::size_t y) { return shares[x] > shares[y]; });
  // A little of the old vector keeps a direction that the matrix does not have.
  const double ridge = 1e-9 * std::max(trace, 0x1p-126) / static_cast<double>(n);
  std::vector<double> next(basis.size());
  for (std::int64_t i = 0; i < n; ++i) {
    const auto from = static_cast<std::int64_t>(order[i]) * n;
    for (std::int64_t j = 0; j < n; ++j) {
      next[i * n + j] = product[from + j] + ridge * static_cast<double>(basis[from + j]);
    }
  }
  orthonormalize_rows(next, n);
  std::transform(next.begin(), next.end(), basis.begin(),
                 [](double value) { return static_cast<float>(value); });
  return order;
}

// The second moment's rows or columns follow their vectors.
void renew_bases(State& state, Shape2 shape, Sides sides) {
  const auto [rows, columns] = shape;
  const std::vector<float> old(state.second.begin(), state.second.end());
  std::vector<std::size_t> row_order(static_cast<std::size_t>(rows));
  std::vector<std::size_t> column_order(static_cast<std::size_t>(columns));
  std::iota(row_order.begin(), row_order.end(), std::size_t{0});
  std::iota(column_order.begin(), column_order.end(), std::size_t{0});
  if (sides.rows > 0) row_order = next_basis(state.left, state.left_basis, rows);
  if (sides.columns > 0) column_order = next_basis(state.right, state.right_basis, columns);
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::size_t from = row_order[r] * static_cast<std::size_t>(columns);
    for (std::int64_t c = 0; c < columns; ++c) {
      state.second[r * columns + c] = old[from + column_order[c]];
    }
  }
}

void step_weights(const UpdateTask& task, const State& state, Sides sides,
                  std::span<const float> g) {
  const Settings& settings = task.settings;
  const double beta1 = settings.number("beta1"), beta2 = settings.number("beta2");
  const auto keep2 = static_cast<float>(beta2), rest2 = static_cast<float>(1.0 - beta2);
  const auto steps = static_cast<double>(state.steps);
  const auto epsilon = static_cast<float>(settings.number("epsilon"));
  const Matrix left{state.left_basis, sides.rows, sides.rows};
  const Matrix right{state.right_basis, sides.columns, sides.columns};
  std::vector<float> inside = between_sides(left, state.mean, turned(right), task.shape, sides);
  {
    const std::vector<float> gradient = between_sides(left, g, turned(right), task.shape, sides);
    for (std::size_t i = 0; i < inside.size(); ++i) {
      const float square = gradient[i] * gradient[i];
      state.second[i] = state.second[i] * keep2 + square * rest2;
      inside[i] /= std::sqrt(state.second[i]) + epsilon;
    }
  }
  const std::vector<float> change = between_sides(turned(left), inside, right, task.shape, sides);
  const double correction =
      std::sqrt(1.0 - std::pow(beta2, steps)) / (1.0 - std::pow(beta1, steps));
  const auto rate = static_cast<float>(task.learning_rate * correction);
  const float keep = run_of(task).keep;
  for (std::size_t i = 0; i < change.size(); ++i) {
    task.weights[i] = task.weights[i] * keep - rate * change[i];
  }
}

void update_matrix(const UpdateTask& task, Sides sides) {
  const Settings& settings = task.settings;
  State state = parts_of(task.state, task.shape, sides);
  const auto beta1 = static_cast<float>(settings.number("beta1"));
  const auto rest1 = static_cast<float>(1.0 - settings.number("beta1"));
  const double side_beta = settings.number("side_beta");
  std::vector<float> g(task.gradient.begin(), task.gradient.end());
  for (float& value : g) value *= task.gradient_scale;
  const auto mix_sides = [&] {
    accumulate_sides(g, task.shape, sides, state.left, state.right, static_cast<float>(side_beta),
                     static_cast<float>(1.0 - side_beta));
  };
  if (state.steps == 0) {
    // The first gradient only makes the bases, as in the authors' program: in the eigenvectors of
    // the very gradient that it steps along Adam would see a diagonal matrix. A gradient of zeros
    // (an adapter's first factor while its second is 0) has no eigenvectors to offer.
    if (std::all_of(g.begin(), g.end(), [](float value) { return value == 0.0f; })) return;
    mix_sides();
    first_basis(state.left, state.left_basis, sides.rows);
    first_basis(state.right, state.right_basis, sides.columns);
    state.steps = 1;
    return;
  }
  for (std::size_t i = 0; i < g.size(); ++i) state.mean[i] = state.mean[i] * beta1 + g[i] * rest1;
  step_weights(task, state, sides, g);
  mix_sides();
  if (std::fmod(static_cast<double>(state.steps), settings.number("every")) == 0.0) {
    renew_bases(state, task.shape, sides);
  }
  ++state.steps;
}

void update(const UpdateTask& task) {
  const Sides sides = sides_of(task.shape, task.settings);
  if (sides.count() > 0) {
    update_matrix(task, sides);
  } else {
    adam_update(task, {task.settings.number("beta1"), task.settings.number("beta2"),
                       task.settings.number("epsilon")});
  }
}

}  // namespace

const UpdateRule& soap_rule() {
  static const UpdateRule kRule = [] {
    UpdateRule rule;
    rule.name = "soap";
    rule.summary = "adamw in the eigenvectors of the means of g g^T and g^T g; vectors: adamw";
    rule.source = "Vyas et al. 2024 (SOAP: Improving and Stabilizing Shampoo using Adam), alg. 3";
    rule.defaults = kDefaults;
    rule.learning_rate = 3e-3;
    rule.weight_decay = 1e-2;
    rule.state_bytes = state_bytes;
    rule.scratch_bytes = scratch_bytes;
    rule.update = update;
    return rule;
  }();
  return kRule;
}

}  // namespace hone::optim

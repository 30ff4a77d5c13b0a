// Muon: the momentum of a matrix, its singular values brought near 1.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "optim/adam_step.h"
#include "optim/linear.h"
#include "optim/rule.h"
#include "optim/state.h"
#include "optim/sums.h"

namespace hone::optim {
namespace {

constexpr std::array kDefaults = {
    decay("momentum", 0.95, "Jordan et al. 2024 (Muon)"),
    choice("nesterov", "yes", "no|yes", "Jordan et al. 2024"),
    whole_number("iterations", 5, "Jordan et al. 2024", 1),
    choice("scale", "rms", "rms|original",
           "rms: 0.2 sqrt(max(R, C)), AdamW's size (Liu et al. 2025, eq. 4); original: "
           "sqrt(max(1, R / C)) (Jordan et al. 2024)"),
    number("epsilon", 1e-7, "Jordan et al. 2024: least norm of a momentum"),
    decay("adam_beta1", 0.9, "Jordan et al. 2024: AdamW for vectors"),
    decay("adam_beta2", 0.95, "Jordan et al. 2024: AdamW for vectors"),
    number("adam_epsilon", 1e-8, "Kingma & Ba 2015"),
};

// Jordan et al. 2024: the odd quintic with the steepest slope at 0 that keeps [0, 1] in about
// [0.7, 1.2].
constexpr float kLinear = 3.4445f, kCubic = -4.7750f, kQuintic = 2.0315f;

std::size_t state_bytes(Shape2 shape, const Settings&) {
  return shape.is_matrix() ? float_bytes(shape.elements()) : adam_state_bytes(shape);
}

std::size_t scratch_bytes(Shape2 shape, const Settings&) {
  if (!shape.is_matrix()) return 0;
  const std::int64_t side = std::min(shape.rows, shape.columns);
  return float_bytes(2 * shape.elements() + 2 * side * side) + Multiplier::bytes();
}

// x (R, C) towards U V^T of its singular value decomposition. Of a tall matrix x^T x is the smaller
// product: (b a + c a a) x is x (b a + c a a) there.
void newton_schulz(std::vector<float>& x, Shape2 shape, int iterations) {
  const bool tall = shape.rows > shape.columns;
  const std::int64_t side = std::min(shape.rows, shape.columns);
  const auto square = static_cast<std::size_t>(side * side);
  std::vector<float> other(x.size()), a(square), polynomial(square);
  Multiplier multiply;
  const Matrix whole{x, shape.rows, shape.columns};
  const Matrix product{a, side, side}, of_product{polynomial, side, side};
  for (int i = 0; i < iterations; ++i) {
    multiply(tall ? turned(whole) : whole, tall ? whole : turned(whole), a);
    multiply(product, product, polynomial);
    for (std::size_t j = 0; j < square; ++j) {
      polynomial[j] = kCubic * a[j] + kQuintic * polynomial[j];
    }
    multiply(tall ? whole : of_product, tall ? of_product : whole, other);
    for (std::size_t j = 0; j < x.size(); ++j) x[j] = kLinear * x[j] + other[j];
  }
}

void update_matrix(const UpdateTask& task) {
  const Settings& settings = task.settings;
  const auto momentum = static_cast<float>(settings.number("momentum"));
  const auto rest = static_cast<float>(1.0 - settings.number("momentum"));
  const bool nesterov = settings.is("nesterov", "yes");
  const std::span<float> state = as_floats(task.state);
  const std::size_t size = task.weights.size();
  std::vector<float> x(size);
  for (std::size_t i = 0; i < size; ++i) {
    const float g = task.gradient[i] * task.gradient_scale;
    state[i] = state[i] * momentum + g * rest;
    x[i] = nesterov ? g * rest + state[i] * momentum : state[i];
  }
  const double norm = std::max(std::sqrt(sum_of_squares(x)), settings.number("epsilon"));
  for (float& value : x) value = static_cast<float>(value / norm);
  newton_schulz(x, task.shape, static_cast<int>(settings.number("iterations")));
  const auto [rows, columns] = task.shape;
  const double r = static_cast<double>(rows), c = static_cast<double>(columns);
  const double scale = settings.is("scale", "rms") ? 0.2 * std::sqrt(std::max(r, c))
                                                   : std::sqrt(std::max(1.0, r / c));
  const auto rate = static_cast<float>(task.learning_rate * scale);
  const float keep = run_of(task).keep;
  for (std::size_t i = 0; i < size; ++i) task.weights[i] = task.weights[i] * keep - rate * x[i];
}

void update(const UpdateTask& task) {
  if (task.shape.is_matrix()) {
    update_matrix(task);
  } else {
    const Settings& settings = task.settings;
    adam_update(task, {settings.number("adam_beta1"), settings.number("adam_beta2"),
                       settings.number("adam_epsilon")});
  }
}

}  // namespace

const UpdateRule& muon_rule() {
  static const UpdateRule kRule = [] {
    UpdateRule rule;
    rule.name = "muon";
    rule.summary = "w -= rate scale U V^T, U S V^T = mean of g, by Newton-Schulz; vectors: adamw";
    rule.source = "Jordan et al. 2024 (Muon: an optimizer for hidden layers); Liu et al. 2025";
    rule.defaults = kDefaults;
    rule.learning_rate = 1e-3;
    rule.weight_decay = 1e-1;
    rule.state_bytes = state_bytes;
    rule.scratch_bytes = scratch_bytes;
    rule.update = update;
    return rule;
  }();
  return kRule;
}

}  // namespace hone::optim

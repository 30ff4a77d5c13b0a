// Shampoo: the gradient of a matrix between inverse roots of its rows' and columns' second moments.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "optim/adam_step.h"
#include "optim/linear.h"
#include "optim/rule.h"
#include "optim/sides.h"
#include "optim/state.h"
#include "optim/sums.h"

namespace hone::optim {
namespace {

constexpr std::array kDefaults = {
    decay("beta1", 0.9, "Shi et al. 2023, section 3: running mean of the gradient; 0: the paper's"),
    decay("beta2", 0.999, "Shi et al. 2023: of the second moments, where accumulate = mean"),
    choice("accumulate", "mean", "mean|sum", "sum: Gupta et al. 2018, alg. 1; mean: Anil 2020"),
    choice("graft", "adam", "adam|none",
           "adam: the step's length is Adam's (Anil et al. 2020, section 5); none: alg. 1"),
    number("epsilon", 1e-6,
           "Anil et al. 2020, section 4: added to eigenvalues, as a part of the largest"),
    number("adam_epsilon", 1e-8, "Kingma & Ba 2015"),
    whole_number("every", 10, "own choice: steps between new roots (alg. 1: 1)", 1),
    whole_number("limit", 1024, "Shi et al. 2023, section 3: a longer side has no factor", 1),
};

struct State {
  std::uint64_t& steps;
  std::span<float> mean, second;       // (R, C)
  std::span<float> left, left_root;    // (R, R)
  std::span<float> right, right_root;  // (C, C)
};

bool grafts(const Settings& settings) { return settings.is("graft", "adam"); }

State parts_of(std::span<std::byte> bytes, Shape2 shape, Sides sides, const Settings& settings) {
  StateParts parts(bytes);
  std::uint64_t& steps = parts.counter();
  const auto mean = parts.floats(shape.elements());
  const auto second = parts.floats(grafts(settings) ? shape.elements() : 0);
  const auto left = parts.floats(sides.rows * sides.rows);
  const auto left_root = parts.floats(sides.rows * sides.rows);
  const auto right = parts.floats(sides.columns * sides.columns);
  const auto right_root = parts.floats(sides.columns * sides.columns);
  return {steps, mean, second, left, left_root, right, right_root};
}

std::size_t state_bytes(Shape2 shape, const Settings& settings) {
  const Sides sides = sides_of(shape, settings);
  if (sides.count() == 0) return adam_state_bytes(shape);
  const std::int64_t copies = grafts(settings) ? 2 : 1;
  return sizeof(std::uint64_t) +
         float_bytes(copies * shape.elements() + 2 * sides.rows * sides.rows +
                     2 * sides.columns * sides.columns);
}

std::size_t scratch_bytes(Shape2 shape, const Settings& settings) {
  const Sides sides = sides_of(shape, settings);
  return sides.count() == 0 ? 0 : sides_scratch_bytes(shape, sides);
}

// New roots at every multiple of `every`, and at first after 0, 1, 2, 4, … steps: the first
// gradients span few directions, and what they leave out would be magnified until the next root.
bool is_time(std::uint64_t steps, double every) {
  const bool power_of_two = (steps & (steps - 1)) == 0;
  return std::fmod(static_cast<double>(steps), every) == 0.0 ||
         (power_of_two && static_cast<double>(steps) < every);
}

// root = (matrix / correction + epsilon largest)^power, eigenvalues below 0 (rounding) lifted to 0.
void set_root(std::span<const float> matrix, std::span<float> root, std::int64_t n,
              double correction, double epsilon, double power) {
  if (n == 0) return;
  const Eigen eigen = symmetric_eigen(matrix, n);
  const double shift = std::min(eigen.values.back(), 0.0);
  const double ridge = epsilon * eigen.values.front();
  std::vector<float> vectors(root.size()), scaled(root.size());
  for (std::int64_t i = 0; i < n; ++i) {
    const double value = (eigen.values[i] - shift + ridge) / correction;
    // A direction without any gradient, and no epsilon: leave it out instead of dividing by 0.
    const double factor = value > 0.0 ? std::pow(value, power) : 0.0;
    for (std::int64_t j = 0; j < n; ++j) {
      const double v = eigen.vectors[i * n + j];
      vectors[i * n + j] = static_cast<float>(v);
      scaled[i * n + j] = static_cast<float>(factor * v);
    }
  }
  Multiplier()(turned({vectors, n, n}), {scaled, n, n}, root);
}

// The length of Adam's step from the corrected mean and second moment.
double adam_length(const State& state, double mean_scale, double second_scale, double epsilon) {
  return std::sqrt(sum_of(state.mean.size(), [&](std::size_t i) {
    const double v = std::sqrt(second_scale * static_cast<double>(state.second[i]));
    const double step = mean_scale * static_cast<double>(state.mean[i]) / (v + epsilon);
    return step * step;
  }));
}

void update_matrix(const UpdateTask& task, Sides sides) {
  const Settings& settings = task.settings;
  const double beta1 = settings.number("beta1"), beta2 = settings.number("beta2");
  const bool sums = settings.is("accumulate", "sum");
  State state = parts_of(task.state, task.shape, sides, settings);
  const auto before = static_cast<double>(state.steps++);
  std::vector<float> g(task.gradient.begin(), task.gradient.end());
  for (float& value : g) value *= task.gradient_scale;
  for (std::size_t i = 0; i < g.size(); ++i) {
    state.mean[i] =
        static_cast<float>(beta1) * state.mean[i] + static_cast<float>(1.0 - beta1) * g[i];
  }
  accumulate_sides(g, task.shape, sides, state.left, state.right,
                   sums ? 1.0f : static_cast<float>(beta2),
                   sums ? 1.0f : static_cast<float>(1.0 - beta2));
  const double correction = sums ? 1.0 : 1.0 - std::pow(beta2, before + 1.0);
  if (is_time(state.steps - 1, settings.number("every"))) {
    const double power = -1.0 / (2.0 * sides.count());
    const double epsilon = settings.number("epsilon");
    set_root(state.left, state.left_root, sides.rows, correction, epsilon, power);
    set_root(state.right, state.right_root, sides.columns, correction, epsilon, power);
  }
  const std::vector<float> direction =
      between_sides({state.left_root, sides.rows, sides.rows}, state.mean,
                    {state.right_root, sides.columns, sides.columns}, task.shape, sides);
  const double mean_scale = 1.0 / (1.0 - std::pow(beta1, before + 1.0));
  double scale = mean_scale;
  if (grafts(settings)) {
    for (std::size_t i = 0; i < g.size(); ++i) {
      state.second[i] = static_cast<float>(beta2) * state.second[i] +
                        static_cast<float>(1.0 - beta2) * g[i] * g[i];
    }
    const double second_scale = 1.0 / (1.0 - std::pow(beta2, before + 1.0));
    const double length = std::sqrt(sum_of_squares(direction));
    const double wanted =
        adam_length(state, mean_scale, second_scale, settings.number("adam_epsilon"));
    scale = length > 0.0 ? wanted / length : 0.0;
  }
  const auto rate = static_cast<float>(task.learning_rate * scale);
  const float keep = run_of(task).keep;
  for (std::size_t i = 0; i < g.size(); ++i) {
    task.weights[i] = task.weights[i] * keep - rate * direction[i];
  }
}

void update(const UpdateTask& task) {
  const Sides sides = sides_of(task.shape, task.settings);
  if (sides.count() > 0) {
    update_matrix(task, sides);
  } else {
    adam_update(task, {task.settings.number("beta1"), task.settings.number("beta2"),
                       task.settings.number("adam_epsilon")});
  }
}

}  // namespace

const UpdateRule& shampoo_rule() {
  static const UpdateRule kRule = [] {
    UpdateRule rule;
    rule.name = "shampoo";
    rule.summary = "w -= rate L^(-1/4) g R^(-1/4), L, R: of g g^T, g^T g; vectors: adamw";
    rule.source = "Gupta, Koren, Singer 2018, algorithm 1; grafting: Anil et al. 2020";
    rule.defaults = kDefaults;
    rule.learning_rate = 1e-3;
    rule.weight_decay = 1e-2;
    rule.state_bytes = state_bytes;
    rule.scratch_bytes = scratch_bytes;
    rule.update = update;
    return rule;
  }();
  return kRule;
}

}  // namespace hone::optim

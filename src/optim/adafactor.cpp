// Adafactor: of the second moment of a matrix only row and column means are kept.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "kernels/registry.h"
#include "optim/rule.h"
#include "optim/state.h"
#include "optim/sums.h"

namespace hone::optim {
namespace {

constexpr std::array kDefaults = {
    number("beta2_decay", -0.8, "Shazeer & Stern 2018, section 7.2: beta2 = 1 - t^-0.8", -10.0,
           0.0),
    number("epsilon1", 0x1p-23, "PyTorch: least root of the second moment (paper: 1e-30 on g^2)"),
    number("epsilon2", 1e-3, "Shazeer & Stern 2018, section 9: least size of a tensor"),
    number("clip", 1.0, "Shazeer & Stern 2018, section 6: d, the largest RMS of an update", 1e-6),
    choice("rate", "relative", "relative|given",
           "relative: min(rate, 1/sqrt(t)) max(epsilon2, RMS(w)), alg. 4 and 5; given: the rate"),
};

// Row means and column means; of a vector the whole second moment.
std::size_t state_bytes(Shape2 shape, const Settings&) {
  return float_bytes(shape.is_matrix() ? shape.rows + shape.columns : shape.elements());
}

std::size_t scratch_bytes(Shape2 shape, const Settings&) {
  return shape.is_matrix() ? static_cast<std::size_t>(shape.columns) * sizeof(double) : 0;
}

// mean += part (value - mean)
float lerp(float mean, double value, float part) {
  return mean + part * (static_cast<float>(value) - mean);
}

// Shazeer & Stern 2018, algorithm 4, lines 6 and 7.
void update_means(const UpdateTask& task, std::span<float> row_means, std::span<float> column_means,
                  float part) {
  const std::size_t rows = row_means.size(), columns = column_means.size();
  const double scale = static_cast<double>(task.gradient_scale) * task.gradient_scale;
  std::vector<double> sums(columns, 0.0);
  for (std::size_t r = 0; r < rows; ++r) {
    const auto row = task.gradient.subspan(r * columns, columns);
    const double mean = scale * sum_of_squares(row) / static_cast<double>(columns);
    row_means[r] = lerp(row_means[r], mean, part);
    for (std::size_t c = 0; c < columns; ++c) sums[c] += static_cast<double>(row[c]) * row[c];
  }
  for (std::size_t c = 0; c < columns; ++c) {
    column_means[c] = lerp(column_means[c], scale * sums[c] / static_cast<double>(rows), part);
  }
}

// The step for a run of elements whose second moment is factor * moments[i].
struct Run {
  std::span<float> weights;
  std::span<const float> gradient;
  std::span<const float> moments;
  float factor;
};

// use(begin, change) for pieces of the run's change before the rate: g / sqrt(second moment).
template <typename Use>
void for_each_change(const Run& run, float scale, float least, Use use) {
  constexpr std::size_t kPiece = 1024;
  std::array<float, kPiece> piece;
  for (std::size_t begin = 0; begin < run.weights.size(); begin += kPiece) {
    const std::size_t count = std::min(kPiece, run.weights.size() - begin);
    const std::span<float> change = std::span(piece).first(count);
    kernels::kernels().root_scaled(run.gradient.subspan(begin, count), scale,
                                   run.moments.subspan(begin, count), run.factor, least, change);
    use(begin, std::span<const float>(change));
  }
}

void update(const UpdateTask& task) {
  const Settings& settings = task.settings;
  const auto step = static_cast<double>(task.step);
  const auto part = static_cast<float>(std::pow(step, settings.number("beta2_decay")));
  const double epsilon1 = settings.number("epsilon1");
  // Subnormal squares would let 0 / 0 through.
  const auto least = static_cast<float>(std::max(epsilon1 * epsilon1, 0x1p-126));
  double rate = task.learning_rate;
  if (settings.is("rate", "relative")) {
    rate = std::min(rate, 1.0 / std::sqrt(step)) *
           std::max(settings.number("epsilon2"), root_mean_square(task.weights));
  }
  const std::span<float> state = as_floats(task.state);
  const auto columns = static_cast<std::size_t>(task.shape.columns);
  std::size_t run_size = task.weights.size();
  double mean = 0.0;
  if (task.shape.is_matrix()) {
    const auto rows = static_cast<std::size_t>(task.shape.rows);
    const std::span<float> row_means = state.first(rows);
    update_means(task, row_means, state.subspan(rows, columns), part);
    mean = sum_of(rows, [&](std::size_t r) { return static_cast<double>(row_means[r]); }) /
           static_cast<double>(rows);
    run_size = columns;
  } else {
    for (std::size_t i = 0; i < run_size; ++i) {
      const float g = task.gradient[i] * task.gradient_scale;
      state[i] = lerp(state[i], static_cast<double>(g) * g, part);
    }
  }
  const auto run_at = [&](std::size_t r) -> Run {
    const std::size_t begin = r * run_size;
    const bool matrix = task.shape.is_matrix();
    const float factor = matrix ? static_cast<float>(state[r] / std::max(mean, epsilon1)) : 1.0f;
    const std::size_t from = matrix ? static_cast<std::size_t>(task.shape.rows) : 0;
    return {task.weights.subspan(begin, run_size), task.gradient.subspan(begin, run_size),
            state.subspan(from, run_size), factor};
  };
  const std::size_t runs = run_size == 0 ? 0 : task.weights.size() / run_size;
  double squares = 0.0;
  for (std::size_t r = 0; r < runs; ++r) {
    for_each_change(run_at(r), task.gradient_scale, least,
                    [&](std::size_t, std::span<const float> x) { squares += sum_of_squares(x); });
  }
  const double size = std::sqrt(squares / static_cast<double>(task.weights.size()));
  const double clipped = rate / std::max(1.0, size / settings.number("clip"));
  const auto step_rate = static_cast<float>(clipped);
  const float keep = run_of(task).keep;
  for (std::size_t r = 0; r < runs; ++r) {
    const Run run = run_at(r);
    for_each_change(run, task.gradient_scale, least,
                    [&](std::size_t begin, std::span<const float> change) {
                      float* weights = run.weights.data() + begin;
                      for (std::size_t i = 0; i < change.size(); ++i) {
                        weights[i] = weights[i] * keep - step_rate * change[i];
                      }
                    });
  }
}

}  // namespace

const UpdateRule& adafactor_rule() {
  static const UpdateRule kRule = [] {
    UpdateRule rule;
    rule.name = "adafactor";
    rule.summary = "w -= rate clip(g / sqrt(row means x column means of g^2))";
    rule.source = "Shazeer & Stern 2018, algorithms 4 and 5, in PyTorch's form";
    rule.defaults = kDefaults;
    rule.learning_rate = 1e-2;
    rule.state_bytes = state_bytes;
    rule.scratch_bytes = scratch_bytes;
    rule.update = update;
    return rule;
  }();
  return kRule;
}

}  // namespace hone::optim

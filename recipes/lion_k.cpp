// Lion-K: the constraint that each convex function solves, checked on problems whose answers are
// known.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/random.h"
#include "optim/measure.h"
#include "optim/registry.h"
#include "recipes/recipe.h"

namespace hone::recipes {
namespace {

constexpr std::int64_t kSize = 64;

// f(x) = sum of a_i (x_i - c_i)^2 / 2 with minima c_i inside and outside of the box.
struct Problem {
  std::vector<double> steepness, centre;
  explicit Problem(std::uint64_t seed) {
    Random random(seed);
    for (std::int64_t i = 0; i < kSize; ++i) {
      steepness.push_back(0.5 + random.uniform());
      centre.push_back(4.0 * random.normal());
    }
  }
  std::vector<float> gradient(std::span<const float> x) const {
    std::vector<float> out;
    for (std::size_t i = 0; i < x.size(); ++i) {
      out.push_back(static_cast<float>(steepness[i] * (x[i] - centre[i])));
    }
    return out;
  }
};

struct Walk {
  std::vector<float> x;
  double envelope_error = 0;  // largest part by which max|x| was above (1 - rate decay)^t start
};

Result<Walk> walk(const Problem& problem, std::string_view settings_text, double start, double rate,
                  double decay, std::int64_t steps) {
  const optim::UpdateRule& rule = *optim::find_rule("lion_k");
  const auto settings = optim::Settings::parse(rule, settings_text);
  if (!settings) return settings.error();
  const optim::Shape2 shape{1, kSize};
  Walk out{std::vector<float>(kSize, static_cast<float>(start)), 0};
  std::vector<std::byte> state(rule.state_bytes(shape, *settings));
  optim::initialize_state(rule, state, shape, *settings);
  for (std::int64_t step = 1; step <= steps; ++step) {
    const auto gradient = problem.gradient(out.x);
    rule.update({out.x, gradient, state, shape, step, rate, decay, 1.0F, *settings});
    const double largest = optim::box_of(out.x, decay).largest;
    // Outside of the box the distance to it shrinks at least like (1 - rate decay)^t.
    const double bound = optim::box_envelope(start, rate, decay, step);
    out.envelope_error = std::max(out.envelope_error, largest / bound - 1);
  }
  return out;
}

std::string norm_text(double value) { return fmt::format("{:.4f}", value); }

Result<RecipeReport> run(const RecipeContext& context) {
  RecipeReport report;
  const Problem problem(context.seed);
  const double rate = 0.002;
  const double decay = 0.5;  // the box is |x| <= 2
  const std::int64_t steps = context.scaled(10000, 4000);

  auto lion = walk(problem, "kappa=l1", 20, rate, decay, steps);
  if (!lion) return lion.error();
  const optim::Box box = optim::box_of(lion->x, decay);
  report.rows.push_back(
      checked("outside of the box max|x| shrinks like (1 - rate decay)^t", "bound holds (Theorem)",
              fmt::format("above the bound by {:.2e} at most", lion->envelope_error),
              lion->envelope_error < 0.01));
  report.rows.push_back(checked("l1 (Lion): max|x| at the end", "<= 1/decay = 2",
                                norm_text(box.largest), box.largest <= 1 / decay + rate));
  // The constrained minimum is the centre put into the box, element by element.
  double error = 0;
  for (std::size_t i = 0; i < lion->x.size(); ++i) {
    const double best = std::clamp(problem.centre[i], -1 / decay, 1 / decay);
    error = std::max(error, std::abs(lion->x[i] - best));
  }
  report.rows.push_back(checked("l1: distance to the minimum inside of the box",
                                "0 (up to the rate)", norm_text(error), error < 20 * rate));

  auto l2 = walk(problem, "kappa=l2", 20, rate, decay, steps);
  if (!l2) return l2.error();
  double squares = 0;
  for (const float value : l2->x) squares += double{value} * double{value};
  // With `size` scaled, grad kappa is sqrt(N) u / |u|: the ball has that radius / decay.
  const double radius = std::sqrt(static_cast<double>(kSize)) / decay;
  report.rows.push_back(checked("l2: norm of x at the end", fmt::format("<= {:.2f}", radius),
                                norm_text(std::sqrt(squares)),
                                std::sqrt(squares) <= radius * 1.01));

  auto huber = walk(problem, "kappa=huber,e=1e-12", 20, rate, decay, steps);
  if (!huber) return huber.error();
  report.rows.push_back(checked("huber with e -> 0 is Lion", "the same steps",
                                huber->x == lion->x ? "the same bits" : "other bits",
                                huber->x == lion->x));

  auto free = walk(problem, "kappa=l1", 0, rate, 0, steps);
  if (!free) return free.error();
  double largest_centre = 0;
  for (const double centre : problem.centre) {
    largest_centre = std::max(largest_centre, std::abs(centre));
  }
  const double reached = optim::box_of(free->x, 1).largest;
  report.rows.push_back(
      {"without decay there is no box: max|x|",
       fmt::format("{:.2f}, of the free minimum", largest_centre), norm_text(reached),
       std::abs(reached - largest_centre) < 20 * rate ? "reproduced" : "not reproduced"});
  report.notes.push_back(
      "quadratics of 64 elements whose constrained minima are known; the paper's tables of image "
      "and "
      "language models are not repeated here");
  return report;
}

}  // namespace

const Recipe& lion_k_recipe() {
  static const Recipe kRecipe{
      "lion-k",
      "Lion Secretly Solves Constrained Optimization (Chen et al. 2024, arXiv 2310.05898)",
      "Lion with weight decay minimizes f under |x| <= 1/decay; other convex functions, other "
      "constraints",
      "quadratics of 64 elements, 10,000 steps", run};
  return kRecipe;
}

}  // namespace hone::recipes

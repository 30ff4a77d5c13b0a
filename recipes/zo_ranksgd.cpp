// ZO-RankSGD: descent by rankings alone, beside estimates that see values.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/random.h"
#include "optim/estimate.h"
#include "optim/rank_search.h"
#include "recipes/recipe.h"

namespace hone::recipes {
namespace {

using Point = std::vector<double>;
using Function = std::function<double(const Point&)>;

double quadratic(const Point& x) {
  return std::inner_product(x.begin(), x.end(), x.begin(), 0.0) / 2;
}

double rosenbrock(const Point& x) {
  double sum = 0;
  for (std::size_t i = 0; i + 1 < x.size(); ++i) {
    const double bend = x[i + 1] - x[i] * x[i];
    sum += 100 * bend * bend + (1 - x[i]) * (1 - x[i]);
  }
  return sum;
}

// Lower is better.
optim::RankingOracle oracle_of(const Function& f) {
  return [f](std::span<const Point> points, std::int64_t most) {
    std::vector<double> values;
    for (const Point& point : points) values.push_back(f(point));
    std::vector<std::int64_t> order(points.size());
    std::iota(order.begin(), order.end(), std::int64_t{0});
    std::ranges::stable_sort(order, {},
                             [&](std::int64_t i) { return values[static_cast<std::size_t>(i)]; });
    order.resize(static_cast<std::size_t>(most));
    return Result<std::vector<std::int64_t>>(std::move(order));
  };
}

// Points seen until the value was the target part of the first (or all), and what is left of it.
struct Walk {
  std::int64_t points = 0;
  double left = 1;
};

Result<Walk> by_ranks(const Function& f, Point start, double target, std::int64_t most,
                      std::uint64_t seed, std::int64_t ranked) {
  const double before = f(start);
  optim::RankSearchOptions options;
  options.seed = seed;
  options.ranked = ranked;
  optim::RankSearch search(std::move(start), options);
  Walk walk;
  while (walk.left > target && search.queries() < most) {
    HONE_RETURN_IF_ERROR(search.step(oracle_of(f)));
    walk = {search.queries(), f(Point(search.point().begin(), search.point().end())) / before};
  }
  return walk;
}

// Pairs of values, one direction at a time (Spall 1992), at the best of the rates.
Walk by_values(const Function& f, const Point& start, double target, std::int64_t most,
               std::uint64_t seed) {
  Walk best{most, 1};
  for (const double rate : {3e-1, 1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5}) {
    Point x = start;
    Random random(seed);
    Walk walk;
    while (walk.left > target && walk.points < most) {
      Point ahead = x, behind = x, noise(x.size());
      for (std::size_t i = 0; i < x.size(); ++i) {
        noise[i] = double{random.normal()};
        ahead[i] += 1e-3 * noise[i];
        behind[i] -= 1e-3 * noise[i];
      }
      const double slope = (f(ahead) - f(behind)) / 2e-3;
      for (std::size_t i = 0; i < x.size(); ++i) x[i] -= rate * slope * noise[i];
      walk = {walk.points + 2, f(x) / f(start)};
      if (!std::isfinite(walk.left)) break;
    }
    if (walk.left <= target && walk.points < best.points) best = walk;
  }
  return best;
}

Result<RecipeReport> run(const RecipeContext& context) {
  RecipeReport report;
  const std::int64_t most = context.scaled(200'000, 400);
  bool follows = true;
  bool whole_better = true;
  struct Problem {
    const char* name;
    Function f;
    double target;
  };
  for (const Problem& problem :
       {Problem{"quadratic", quadratic, 1e-3}, Problem{"Rosenbrock", rosenbrock, 1e-2}}) {
    for (const std::size_t size : {std::size_t{20}, std::size_t{200}}) {
      Random random(context.seed);
      Point start(size);
      std::ranges::generate(start, [&] { return double{random.normal()}; });
      const Function& f = problem.f;
      const auto ranks = by_ranks(f, start, problem.target, most, context.seed, 15);
      const auto few = by_ranks(f, start, problem.target, most, context.seed, 1);
      if (!ranks || !few) return ranks ? few.error() : ranks.error();
      const Walk values = by_values(f, start, problem.target, most, context.seed);
      report.rows.push_back(
          checked(fmt::format("{}, {} dimensions: points to {:g} of the start", problem.name, size,
                              problem.target),
                  "near value-based search",
                  fmt::format("{} by all ranks, {} by the best alone, {} by values", ranks->points,
                              few->points, values.points),
                  ranks->points <= 3 * values.points));
      whole_better = whole_better && ranks->points <= few->points;
      // Only the order may count.
      const Function bent = [&f](const Point& x) { return std::log1p(f(x)); };
      const auto a = by_ranks(bent, start, 0, most / 100, context.seed, 15);
      const auto b = by_ranks(f, start, 0, most / 100, context.seed, 15);
      if (!a || !b) return a ? b.error() : a.error();
      const double expected = std::log1p(b->left * f(start)) / std::log1p(f(start));
      follows = follows && std::abs(a->left - expected) < 1e-9;
    }
  }
  report.rows.push_back(checked("the same walk for any monotone change of the values", "by theory",
                                follows ? "equal" : "different", follows));
  report.rows.push_back(checked("ranking all beats naming the best", "lower variance",
                                whole_better ? "on all four" : "not always", whole_better));
  report.notes = {
      "15 candidates a round, 14 points a line search; the paper's settings are not published",
      "edges are counted exactly (m - 1 - 2 r); the published code's m - 2 r do not add up to zero",
      "values get the best of ten rates, rankings have none to choose"};
  return report;
}

}  // namespace

const Recipe& zo_ranksgd_recipe() {
  static const Recipe kRecipe{
      "zo-ranksgd", "Zeroth-Order Optimization Meets Human Feedback (Tang et al. 2024, 2303.03751)",
      "an order of candidates is enough to descend", "quadratic and Rosenbrock functions", run};
  return kRecipe;
}

}  // namespace hone::recipes

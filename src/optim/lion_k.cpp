// Lion-K: Lion with the gradient of any convex function kappa in place of the sign.
// SPDX-License-Identifier: Apache-2.0
//
//   u = beta1 m + (1 - beta1) g;  x <- x - rate (grad kappa(u) + decay x);  m = beta2 m + (1 -
//   beta2) g
// minimizes f(x) + kappa*(decay x) / decay with kappa* the convex conjugate (Chen et al. 2024,
// "Lion Secretly Solves Constrained Optimization", eq. 4 and theorem 3.1). With s = 1 or, for
// `size` = scaled, the factor that gives grad kappa Lion's size, and d the weight decay:
//
//   kappa         kappa(u)                    grad kappa                what is solved
//   l1            |u|_1                       sign(u)                   f, max|x| <= 1/d (Lion)
//   l2            s |u|_2, s = N^(1/2)        s u / |u|_2               f, |x|_2 <= s/d
//   lp            s |u|_p, s = N^(1/q)        s sign(u) (|u|/|u|_p)^(p-1)  f, |x|_q <= s/d, 1/p +
//   1/q = 1 huber         sum huber_e(u)              clip(u / e, -1, 1)        f + d e/2 |x|_2^2,
//   max|x| <= 1/d sqrt          sum sqrt(u^2 + e^2)         u / sqrt(u^2 + e^2)       f - e/d sum
//   sqrt(1 - d^2 x^2),
//                                                                       max|x| <= 1/d
//   truncated-l1  sum max(|u| - e, 0)         sign(u) where |u| > e     f + e |x|_1, max|x| <= 1/d
//   group         s sum |u_group|_2           s u_group / |u_group|_2   f, every |x_group|_2 <= s/d
#include <algorithm>
#include <array>
#include <cmath>

#include "optim/rule.h"
#include "optim/state.h"
#include "optim/sums.h"

namespace hone::optim {
namespace {

constexpr std::array kDefaults = {
    choice("kappa", "l1", "l1|l2|lp|huber|sqrt|truncated-l1|group",
           "Chen et al. 2024, table 2; the file's head has what each one solves"),
    decay("beta1", 0.9, "Chen et al. 2023, section 3.2"),
    decay("beta2", 0.99, "Chen et al. 2023, section 3.2"),
    number("e", 1e-4, "own choice: where huber, sqrt and truncated-l1 bend, in units of u"),
    number("p", 1.5, "own choice, between l1 and l2", 1.0),
    whole_number("group", 0, "own choice: elements of a group; 0: a row of the matrix", 0),
    choice("size", "scaled", "scaled|plain",
           "own choice: l2, lp and group times the factor that gives Lion's step size"),
};

constexpr std::int64_t kGranule = 16;

std::size_t state_bytes(Shape2 shape, const Settings&) {
  return float_bytes(padded(shape.elements(), kGranule));
}

// A run of the tensor's elements with its momentum.
struct LionRun {
  std::span<float> weights;
  std::span<const float> gradient;
  std::span<float> momentum;
};

struct LionStep {
  float scale, rate, keep, beta1, rest1, beta2, rest2;

  float interpolated(const LionRun& run, std::size_t i) const {
    return run.momentum[i] * beta1 + run.gradient[i] * scale * rest1;
  }
  // The step with grad kappa(u) = slope(u) for each element.
  template <typename Slope>
  void apply(const LionRun& run, Slope slope) const {
    for (std::size_t i = 0; i < run.weights.size(); ++i) {
      const float change = slope(interpolated(run, i));
      run.weights[i] = run.weights[i] * keep - rate * change;
      run.momentum[i] = run.momentum[i] * beta2 + run.gradient[i] * scale * rest2;
    }
  }
  // grad of s |u|_2 over the run.
  void apply_l2(const LionRun& run, bool scaled) const {
    const double norm = std::sqrt(sum_of(run.weights.size(), [&](std::size_t i) {
      const double u = interpolated(run, i);
      return u * u;
    }));
    const double size = scaled ? std::sqrt(static_cast<double>(run.weights.size())) : 1.0;
    const auto factor = static_cast<float>(norm > 0.0 ? size / norm : 0.0);
    apply(run, [factor](float u) { return u * factor; });
  }
  void apply_lp(const LionRun& run, double p, bool scaled) const {
    const double sum = sum_of(run.weights.size(), [&](std::size_t i) {
      return std::pow(std::abs(static_cast<double>(interpolated(run, i))), p);
    });
    const double inverse = sum > 0.0 ? std::pow(sum, -1.0 / p) : 0.0;
    // N^(1/q) = N^(1 - 1/p)
    const double count = static_cast<double>(run.weights.size());
    const double size = scaled ? std::pow(count, 1.0 - 1.0 / p) : 1.0;
    apply(run, [=](float u) {
      if (u == 0.0f) return 0.0f;  // 0^0 for p = 1
      const double part = size * std::pow(std::abs(static_cast<double>(u)) * inverse, p - 1.0);
      return static_cast<float>(std::copysign(part, static_cast<double>(u)));
    });
  }
};

float sign_of(float u) { return u == 0.0f ? 0.0f : std::copysign(1.0f, u); }

LionStep step_of(const UpdateTask& task) {
  const kernels::UpdateRun run = run_of(task);
  const double beta1 = task.settings.number("beta1");
  const double beta2 = task.settings.number("beta2");
  return {run.gradient_scale,
          run.rate,
          run.keep,
          static_cast<float>(beta1),
          static_cast<float>(1.0 - beta1),
          static_cast<float>(beta2),
          static_cast<float>(1.0 - beta2)};
}

void update_groups(const UpdateTask& task, const LionStep& step, const LionRun& all, bool scaled) {
  const auto given = static_cast<std::size_t>(task.settings.number("group"));
  const std::size_t group = given > 0 ? given : static_cast<std::size_t>(task.shape.columns);
  for (std::size_t begin = 0; begin < all.weights.size(); begin += group) {
    const std::size_t count = std::min(group, all.weights.size() - begin);
    step.apply_l2({all.weights.subspan(begin, count), all.gradient.subspan(begin, count),
                   all.momentum.subspan(begin, count)},
                  scaled);
  }
}

void update(const UpdateTask& task) {
  const Settings& settings = task.settings;
  const LionStep step = step_of(task);
  const LionRun run{task.weights, task.gradient, as_floats(task.state).first(task.weights.size())};
  const std::string_view kappa = settings.word("kappa");
  const bool scaled = settings.is("size", "scaled");
  const auto e = static_cast<float>(settings.number("e"));
  if (kappa == "l1") {
    step.apply(run, sign_of);
  } else if (kappa == "l2") {
    step.apply_l2(run, scaled);
  } else if (kappa == "lp") {
    step.apply_lp(run, settings.number("p"), scaled);
  } else if (kappa == "huber") {
    // e = 0 is the limit, the sign; so it is where u / e overflows.
    step.apply(run, [e](float u) { return u == 0.0f ? 0.0f : std::clamp(u / e, -1.0f, 1.0f); });
  } else if (kappa == "sqrt") {
    // hypot, because u^2 and e^2 leave the range of f32 long before u and e do.
    step.apply(run, [e](float u) { return u == 0.0f ? 0.0f : u / std::hypot(u, e); });
  } else if (kappa == "truncated-l1") {
    step.apply(run, [e](float u) { return std::abs(u) > e ? sign_of(u) : 0.0f; });
  } else {
    update_groups(task, step, run, scaled);
  }
}

}  // namespace

const UpdateRule& lion_k_rule() {
  static const UpdateRule kRule = [] {
    UpdateRule rule;
    rule.name = "lion_k";
    rule.summary = "w -= rate grad kappa(beta1 m + (1 - beta1) g); m = beta2 m + (1 - beta2) g";
    rule.source =
        "Chen, Liu, Liang, Liu 2024 (Lion Secretly Solves Constrained Optimization), eq. 4";
    rule.defaults = kDefaults;
    rule.learning_rate = 1e-4;
    rule.weight_decay = 1e-1;
    rule.state_bytes = state_bytes;
    rule.update = update;
    return rule;
  }();
  return kRule;
}

}  // namespace hone::optim

// What the tests of update rules share: rules with each of their choices, and tensors to step.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "base/random.h"
#include "optim/registry.h"

namespace hone::optim {

// A rule with its defaults, or with one choice changed: what the battery expands from the list.
struct Variant {
  const UpdateRule* rule = nullptr;
  std::string change;  // "kappa=l2", or empty
  Settings settings() const { return *Settings::parse(*rule, change); }
  std::string name() const {
    std::string out = std::string(rule->name) + (change.empty() ? "" : "_" + change);
    for (char& c : out) {
      if (std::isalnum(static_cast<unsigned char>(c)) == 0) c = '_';
    }
    return out;
  }
};

inline std::vector<Variant> all_variants() {
  std::vector<Variant> variants;
  for (const UpdateRule* rule : all_rules()) {
    variants.push_back({rule, ""});
    for (const Setting& setting : rule->defaults) {
      std::string_view rest = setting.choices;
      while (!rest.empty()) {
        const std::string_view word = rest.substr(0, rest.find('|'));
        rest.remove_prefix(std::min(word.size() + 1, rest.size()));
        if (word != setting.word) {
          variants.push_back({rule, std::string(setting.name) + "=" + std::string(word)});
        }
      }
    }
  }
  return variants;
}

inline std::vector<Variant> element_wise_variants() {
  std::vector<Variant> variants = all_variants();
  std::erase_if(variants, [](const Variant& variant) { return !variant.rule->element_wise; });
  return variants;
}

// Odd sizes on purpose: no multiple of a vector, a granule or a block. The last one has several
// blocks; rules on whole matrices get a smaller one, for the sake of their eigenvectors.
inline std::vector<Shape2> odd_shapes(const UpdateRule& rule) {
  std::vector<Shape2> shapes = {{12, 20}, {20, 12}, {1, 37}, {1, 1}, {31, 1}};
  shapes.push_back(rule.element_wise ? Shape2{3, 601} : Shape2{3, 67});
  return shapes;
}

inline std::vector<float> random_values(std::size_t count, std::uint64_t seed) {
  Random random(seed);
  std::vector<float> values(count);
  for (float& value : values) value = random.normal();
  return values;
}

// A tensor with its state, and steps of it.
struct Stepped {
  Stepped(const Variant& variant, Shape2 with_shape, std::vector<float> start)
      : rule(*variant.rule),
        settings(variant.settings()),
        shape(with_shape),
        weights(std::move(start)),
        state(rule.state_bytes(shape, settings), std::byte{0xFF}) {
    initialize_state(rule, state, shape, settings);
  }

  UpdateTask task(std::span<const float> gradient, double rate) {
    return {.weights = weights,
            .gradient = gradient,
            .state = state,
            .shape = shape,
            .step = ++steps,
            .learning_rate = rate,
            .weight_decay = weight_decay,
            .gradient_scale = gradient_scale,
            .settings = settings};
  }
  void step(std::span<const float> gradient, double rate) { rule.update(task(gradient, rate)); }

  bool same_as(const Stepped& other) const {
    return state == other.state && weights.size() == other.weights.size() &&
           std::memcmp(weights.data(), other.weights.data(), weights.size() * sizeof(float)) == 0;
  }

  const UpdateRule& rule;
  Settings settings;
  Shape2 shape;
  std::vector<float> weights;
  std::vector<std::byte> state;
  std::int64_t steps = 0;
  double weight_decay = 0.0;
  float gradient_scale = 1.0f;
};

}  // namespace hone::optim

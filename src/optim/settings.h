// The settings of an update rule: names, defaults with their sources, bounds, and text and back.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace hone::optim {

struct UpdateRule;

// A number, or one of several words. Made by the functions below; lives as long as its rule.
struct Setting {
  std::string_view name;
  double value = 0.0;  // the default
  std::string_view source;
  double least = 0.0;  // least <= value < below
  double below = std::numeric_limits<double>::infinity();
  bool whole = false;          // no fractions
  std::string_view word{};     // the default of a choice,
  std::string_view choices{};  // one of "these|words"; empty: a number
};

constexpr Setting number(std::string_view name, double value, std::string_view source,
                         double least = 0.0,
                         double below = std::numeric_limits<double>::infinity()) {
  return {name, value, source, least, below, false, {}, {}};
}
// A decay of a running mean: at least 0, below 1.
constexpr Setting decay(std::string_view name, double value, std::string_view source) {
  return number(name, value, source, 0.0, 1.0);
}
constexpr Setting whole_number(std::string_view name, double value, std::string_view source,
                               double least) {
  return {name, value, source, least, 0x1p31, true, {}, {}};
}
constexpr Setting choice(std::string_view name, std::string_view word, std::string_view choices,
                         std::string_view source) {
  return {name, 0.0, source, 0.0, 0.0, false, word, choices};
}

class Settings {
 public:
  Settings() = default;
  explicit Settings(std::span<const Setting> defaults);

  // The rule's defaults, changed by "beta1=0.9,kappa=huber"; spaces around names and values are
  // allowed. An unknown name, a value that is none, or one out of bounds is an error that says what
  // there is.
  static Result<Settings> parse(const UpdateRule& rule, std::string_view text);

  Status set(std::string_view name, std::string_view value);

  // A name that the rule does not declare is a mistake in the rule: NaN, or an empty word.
  double number(std::string_view name) const;
  std::string_view word(std::string_view name) const;
  bool is(std::string_view name, std::string_view choice) const { return word(name) == choice; }

  // Parses back to the same settings, to the bit; the order is the rule's.
  std::string text() const;
  bool operator==(const Settings& other) const { return text() == other.text(); }

 private:
  struct Entry {
    const Setting* setting;
    double value;
    std::string_view word;  // a part of setting->choices
  };
  const Entry* find(std::string_view name) const;

  std::vector<Entry> entries_;
};

}  // namespace hone::optim

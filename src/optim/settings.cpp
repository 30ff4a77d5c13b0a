// SPDX-License-Identifier: Apache-2.0
#include "optim/settings.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/nearest.h"
#include "optim/rule.h"

namespace hone::optim {
namespace {

std::string_view trimmed(std::string_view text) {
  const auto begin = text.find_first_not_of(" \t");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t") - begin + 1);
}

Error invalid(std::string what, std::string found, std::string expected, std::string advice = {}) {
  Error error;
  error.code = ErrorCode::kInvalidArgument;
  error.what = std::move(what);
  error.found = std::move(found);
  error.expected = std::move(expected);
  error.advice = std::move(advice);
  return error;
}

std::string bounds_of(const Setting& setting) {
  const char* kind = setting.whole ? "a whole number" : "a number";
  if (std::isinf(setting.below)) return fmt::format("{} of at least {}", kind, setting.least);
  return fmt::format("{} of at least {} and below {}", kind, setting.least, setting.below);
}

// The choice in "a|b|c" that is the word; empty if none is.
std::string_view choice_of(std::string_view choices, std::string_view word) {
  while (!choices.empty()) {
    const auto bar = std::min(choices.find('|'), choices.size());
    if (choices.substr(0, bar) == word) return choices.substr(0, bar);
    choices.remove_prefix(std::min(bar + 1, choices.size()));
  }
  return {};
}

}  // namespace

Settings::Settings(std::span<const Setting> defaults) {
  entries_.reserve(defaults.size());
  for (const Setting& setting : defaults) {
    entries_.push_back({&setting, setting.value, setting.word});
  }
}

const Settings::Entry* Settings::find(std::string_view name) const {
  for (const Entry& entry : entries_) {
    if (entry.setting->name == name) return &entry;
  }
  return nullptr;
}

double Settings::number(std::string_view name) const {
  const Entry* entry = find(name);
  return entry == nullptr ? std::numeric_limits<double>::quiet_NaN() : entry->value;
}

std::string_view Settings::word(std::string_view name) const {
  const Entry* entry = find(name);
  return entry == nullptr ? std::string_view{} : entry->word;
}

Status Settings::set(std::string_view name, std::string_view value) {
  const auto at = std::find_if(entries_.begin(), entries_.end(),
                               [name](const Entry& entry) { return entry.setting->name == name; });
  if (at == entries_.end()) {
    std::vector<std::string_view> names;
    for (const Entry& entry : entries_) names.push_back(entry.setting->name);
    const std::string meant = nearest(name, names);
    return invalid("unknown setting of the update rule", fmt::format("'{}'", name),
                   names.empty() ? "no setting: the rule has none"
                                 : fmt::format("one of {}", fmt::join(names, ", ")),
                   meant.empty() ? "" : fmt::format("did you mean '{}'?", meant));
  }
  const Setting& setting = *at->setting;
  const std::string what = fmt::format("setting '{}' has no such value", name);
  if (!setting.choices.empty()) {
    const std::string_view word = choice_of(setting.choices, value);
    if (word.empty()) {
      return invalid(what, fmt::format("'{}'", value), fmt::format("one of {}", setting.choices));
    }
    at->word = word;
    return {};
  }
  double parsed = 0.0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), parsed);
  const bool is_number = error == std::errc{} && end == value.data() + value.size();
  if (!is_number || !(parsed >= setting.least && parsed < setting.below) ||
      (setting.whole && parsed != std::floor(parsed))) {
    return invalid(what, fmt::format("'{}'", value), bounds_of(setting));
  }
  at->value = parsed;
  return {};
}

Result<Settings> Settings::parse(const UpdateRule& rule, std::string_view text) {
  Settings settings(rule.defaults);
  while (!trimmed(text).empty()) {
    const auto comma = std::min(text.find(','), text.size());
    const std::string_view item = trimmed(text.substr(0, comma));
    text.remove_prefix(std::min(comma + 1, text.size()));
    const auto equals = item.find('=');
    if (equals == std::string_view::npos) {
      return invalid("a setting of an update rule is name=value", fmt::format("'{}'", item),
                     "for example beta1=0.9,beta2=0.99");
    }
    const Status status =
        settings.set(trimmed(item.substr(0, equals)), trimmed(item.substr(equals + 1)));
    if (!status) return status.error().in(fmt::format("update rule {}", rule.name));
  }
  return settings;
}

std::string Settings::text() const {
  std::string out;
  for (const Entry& entry : entries_) {
    if (!out.empty()) out += ',';
    out += entry.setting->choices.empty() ? fmt::format("{}={}", entry.setting->name, entry.value)
                                          : fmt::format("{}={}", entry.setting->name, entry.word);
  }
  return out;
}

}  // namespace hone::optim

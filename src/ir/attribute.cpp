// SPDX-License-Identifier: Apache-2.0
#include "ir/attribute.h"

#include <algorithm>

namespace hone::ir {
namespace {

template <typename Entries>
auto position(Entries& entries, std::string_view name) {
  return std::lower_bound(
      entries.begin(), entries.end(), name,
      [](const auto& entry, std::string_view key) { return entry.first < key; });
}

}  // namespace

Attributes::Attributes() = default;
Attributes::Attributes(const Attributes& other) = default;
Attributes::Attributes(Attributes&& other) noexcept = default;
Attributes& Attributes::operator=(const Attributes& other) = default;
Attributes& Attributes::operator=(Attributes&& other) noexcept = default;
Attributes::~Attributes() = default;
bool Attributes::operator==(const Attributes& other) const = default;

Attributes::Attributes(std::initializer_list<std::pair<std::string, Attribute>> entries) {
  for (const auto& [name, value] : entries) set(name, value);
}

void Attributes::set(std::string_view name, Attribute value) {
  const auto at = position(entries_, name);
  if (at != entries_.end() && at->first == name) {
    at->second = std::move(value);
  } else {
    entries_.emplace(at, std::string(name), std::move(value));
  }
}

void Attributes::remove(std::string_view name) {
  const auto at = position(entries_, name);
  if (at != entries_.end() && at->first == name) entries_.erase(at);
}

const Attribute* Attributes::find(std::string_view name) const {
  const auto at = position(entries_, name);
  return at != entries_.end() && at->first == name ? &at->second : nullptr;
}

bool Attributes::flag(std::string_view name, bool otherwise) const {
  const Attribute* attribute = find(name);
  const bool* value = attribute != nullptr ? std::get_if<bool>(attribute) : nullptr;
  return value != nullptr ? *value : otherwise;
}

std::int64_t Attributes::integer(std::string_view name, std::int64_t otherwise) const {
  const Attribute* attribute = find(name);
  const auto* value = attribute != nullptr ? std::get_if<std::int64_t>(attribute) : nullptr;
  return value != nullptr ? *value : otherwise;
}

double Attributes::number(std::string_view name, double otherwise) const {
  const Attribute* attribute = find(name);
  const double* value = attribute != nullptr ? std::get_if<double>(attribute) : nullptr;
  return value != nullptr ? *value : otherwise;
}

std::string_view Attributes::text(std::string_view name, std::string_view otherwise) const {
  const Attribute* attribute = find(name);
  const auto* value = attribute != nullptr ? std::get_if<std::string>(attribute) : nullptr;
  return value != nullptr ? std::string_view(*value) : otherwise;
}

std::span<const std::int64_t> Attributes::integers(std::string_view name) const {
  const Attribute* attribute = find(name);
  const auto* value = attribute != nullptr ? std::get_if<Integers>(attribute) : nullptr;
  return value != nullptr ? std::span<const std::int64_t>(*value) : std::span<const std::int64_t>();
}

std::span<const double> Attributes::numbers(std::string_view name) const {
  const Attribute* attribute = find(name);
  const auto* value = attribute != nullptr ? std::get_if<Numbers>(attribute) : nullptr;
  return value != nullptr ? std::span<const double>(*value) : std::span<const double>();
}

}  // namespace hone::ir

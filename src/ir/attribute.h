// Attributes: the constants of an operation, by name.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace hone::ir {

using Integers = std::vector<std::int64_t>;
using Numbers = std::vector<double>;
using Strings = std::vector<std::string>;
using Attribute = std::variant<bool, std::int64_t, double, std::string, Integers, Numbers, Strings>;

// A small map ordered by name, so that two equal sets print and hash the same.
class Attributes {
 public:
  Attributes();
  Attributes(std::initializer_list<std::pair<std::string, Attribute>> entries);
  // Out of line, as the variant's visitors would be compiled in every op, pass and model.
  Attributes(const Attributes& other);
  Attributes(Attributes&& other) noexcept;
  Attributes& operator=(const Attributes& other);
  Attributes& operator=(Attributes&& other) noexcept;
  ~Attributes();

  void set(std::string_view name, Attribute value);
  void remove(std::string_view name);
  const Attribute* find(std::string_view name) const;

  // The value, or the default where the name is absent or of another kind. Types are checked by
  // the op's type rule, so a pass or a kernel may rely on them afterwards.
  bool flag(std::string_view name, bool otherwise = false) const;
  std::int64_t integer(std::string_view name, std::int64_t otherwise = 0) const;
  double number(std::string_view name, double otherwise = 0) const;
  std::string_view text(std::string_view name, std::string_view otherwise = "") const;
  std::span<const std::int64_t> integers(std::string_view name) const;
  std::span<const double> numbers(std::string_view name) const;

  bool operator==(const Attributes& other) const;
  bool empty() const { return entries_.empty(); }
  auto begin() const { return entries_.begin(); }
  auto end() const { return entries_.end(); }

 private:
  std::vector<std::pair<std::string, Attribute>> entries_;
};

}  // namespace hone::ir

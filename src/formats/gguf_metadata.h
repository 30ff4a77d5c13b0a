// Metadata of a GGUF file: keys in order, typed values, getters whose errors say what is wrong.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/status.h"
#include "formats/text_table.h"

namespace hone::formats {

// In both variants the alternative is the type that stands in the file.
using MetaArray =
    std::variant<std::vector<std::uint8_t>, std::vector<std::int8_t>, std::vector<std::uint16_t>,
                 std::vector<std::int16_t>, std::vector<std::uint32_t>, std::vector<std::int32_t>,
                 std::vector<float>, std::vector<bool>, TextTable, std::vector<std::uint64_t>,
                 std::vector<std::int64_t>, std::vector<double>>;
using MetaValue = std::variant<std::uint8_t, std::int8_t, std::uint16_t, std::int16_t,
                               std::uint32_t, std::int32_t, float, bool, std::string, MetaArray,
                               std::uint64_t, std::int64_t, double>;

// "u32", "text", "array of f32 (262144)", for messages and `hone inspect`.
std::string meta_type_name(const MetaValue& value);
// The value as text; arrays show their first elements.
std::string meta_value_text(const MetaValue& value, std::size_t most_elements = 8);

class Metadata {
 public:
  struct Entry {
    std::string key;
    MetaValue value;
  };

  // `source` is the file's name, for errors.
  explicit Metadata(std::string source = "metadata");
  // Out of line: the variants' visitors would be compiled wherever a model is named, 1 to 2 s each.
  Metadata(const Metadata& other);
  Metadata(Metadata&& other) noexcept;
  Metadata& operator=(const Metadata& other);
  Metadata& operator=(Metadata&& other) noexcept;
  ~Metadata();

  std::span<const Entry> entries() const { return entries_; }
  std::size_t size() const { return entries_.size(); }
  const std::string& source() const { return source_; }

  const MetaValue* find(std::string_view key) const;  // nullptr if absent
  bool has(std::string_view key) const { return find(key) != nullptr; }

  // Errors: kNotFound without the key, kUnsupported with another type, kOutOfRange for a whole
  // number that does not fit. `integer` takes any width and sign, `number` floats and integers.
  Result<std::int64_t> integer(std::string_view key) const;
  Result<double> number(std::string_view key) const;
  Result<bool> boolean(std::string_view key) const;
  Result<std::string> text(std::string_view key) const;
  // The default stands in for an absent key only; another type is still an error.
  Result<std::int64_t> integer_or(std::string_view key, std::int64_t otherwise) const;
  Result<double> number_or(std::string_view key, double otherwise) const;
  Result<bool> boolean_or(std::string_view key, bool otherwise) const;
  Result<std::string> text_or(std::string_view key, std::string otherwise) const;

  // Arrays: texts borrowed, integers widened from any type, floats from f32 or f64.
  Result<const TextTable*> texts(std::string_view key) const;
  Result<std::vector<std::int64_t>> integers(std::string_view key) const;
  Result<std::vector<float>> floats(std::string_view key) const;
  Result<std::vector<bool>> booleans(std::string_view key) const;

  // Replaces in place, or appends.
  void set(std::string key, MetaValue value);
  void erase(std::string_view key);

 private:
  Result<const MetaValue*> require(std::string_view key) const;
  Result<const MetaArray*> require_array(std::string_view key, const char* wanted) const;
  Error wrong_type(std::string_view key, const MetaValue& value, const char* wanted) const;

  std::string source_;
  std::vector<Entry> entries_;
  std::map<std::string, std::size_t, std::less<>> index_;  // key to its place in entries_
};

}  // namespace hone::formats

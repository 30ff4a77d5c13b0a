// Getters of GGUF metadata; their errors name the file, the key, and both types.
// SPDX-License-Identifier: Apache-2.0
#include "formats/gguf_metadata.h"

#include <limits>
#include <optional>
#include <type_traits>

#include <fmt/format.h>

namespace hone::formats {
namespace {

template <typename T>
constexpr const char* type_name() {
  if constexpr (std::is_same_v<T, bool>) return "bool";
  if constexpr (std::is_same_v<T, std::uint8_t>) return "u8";
  if constexpr (std::is_same_v<T, std::int8_t>) return "i8";
  if constexpr (std::is_same_v<T, std::uint16_t>) return "u16";
  if constexpr (std::is_same_v<T, std::int16_t>) return "i16";
  if constexpr (std::is_same_v<T, std::uint32_t>) return "u32";
  if constexpr (std::is_same_v<T, std::int32_t>) return "i32";
  if constexpr (std::is_same_v<T, std::uint64_t>) return "u64";
  if constexpr (std::is_same_v<T, std::int64_t>) return "i64";
  if constexpr (std::is_same_v<T, float>) return "f32";
  if constexpr (std::is_same_v<T, double>) return "f64";
  if constexpr (std::is_same_v<T, std::string>) return "text";
  return "array";
}

template <typename T>
constexpr bool kIsWhole = std::is_integral_v<T> && !std::is_same_v<T, bool>;

template <typename T>
std::string scalar_text(const T& value) {
  if constexpr (std::is_same_v<T, std::string>)
    return value;
  else
    return fmt::format("{}", value);
}

// Fails only for a u64 beyond i64.
template <typename T>
std::optional<std::int64_t> widened(T value) {
  if constexpr (std::is_same_v<T, std::uint64_t>) {
    if (value > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
      return std::nullopt;
    }
  }
  return static_cast<std::int64_t>(value);
}

}  // namespace

std::string meta_type_name(const MetaValue& value) {
  return std::visit(
      []<typename T>(const T& held) -> std::string {
        if constexpr (std::is_same_v<T, MetaArray>) {
          return std::visit(
              []<typename V>(const V& elements) {
                return fmt::format("array of {} ({})", type_name<typename V::value_type>(),
                                   elements.size());
              },
              held);
        } else {
          return type_name<T>();
        }
      },
      value);
}

std::string meta_value_text(const MetaValue& value, std::size_t most_elements) {
  return std::visit(
      [&]<typename T>(const T& held) -> std::string {
        if constexpr (std::is_same_v<T, MetaArray>) {
          return std::visit(
              [&]<typename V>(const V& elements) {
                std::string out = "[";
                for (std::size_t i = 0; i < elements.size(); ++i) {
                  if (i > 0) out += ", ";
                  if (i == most_elements) {
                    out += "…";
                    break;
                  }
                  out += scalar_text(static_cast<typename V::value_type>(elements[i]));
                }
                return out + "]";
              },
              held);
        } else {
          return scalar_text(held);
        }
      },
      value);
}

Metadata::Metadata(std::string source) : source_(std::move(source)) {}
Metadata::Metadata(const Metadata& other) = default;
Metadata::Metadata(Metadata&& other) noexcept = default;
Metadata& Metadata::operator=(const Metadata& other) = default;
Metadata& Metadata::operator=(Metadata&& other) noexcept = default;
Metadata::~Metadata() = default;

const MetaValue* Metadata::find(std::string_view key) const {
  const auto found = index_.find(key);
  return found == index_.end() ? nullptr : &entries_[found->second].value;
}

void Metadata::set(std::string key, MetaValue value) {
  const auto [place, added] = index_.try_emplace(key, entries_.size());
  if (added) {
    entries_.push_back({std::move(key), std::move(value)});
  } else {
    entries_[place->second].value = std::move(value);
  }
}

void Metadata::erase(std::string_view key) {
  const auto found = index_.find(key);
  if (found == index_.end()) return;
  const std::size_t place = found->second;
  index_.erase(found);
  entries_.erase(entries_.begin() + static_cast<std::ptrdiff_t>(place));
  for (auto& [name, other] : index_) {
    if (other > place) --other;
  }
}

Error Metadata::wrong_type(std::string_view key, const MetaValue& value, const char* wanted) const {
  return Error{ErrorCode::kUnsupported,
               fmt::format("metadata '{}' has the wrong type", key),
               source_,
               meta_type_name(value),
               wanted,
               "convert the model again with a current converter"};
}

Result<const MetaValue*> Metadata::require(std::string_view key) const {
  const MetaValue* value = find(key);
  if (value != nullptr) return value;
  return Error{ErrorCode::kNotFound,
               fmt::format("metadata '{}' is missing", key),
               source_,
               fmt::format("{} other keys", entries_.size()),
               "",
               "check that this file holds what it should; `hone inspect` lists its keys"};
}

Result<const MetaArray*> Metadata::require_array(std::string_view key, const char* wanted) const {
  const auto value = require(key);
  if (!value) return value.error();
  const auto* array = std::get_if<MetaArray>(*value);
  if (array == nullptr) return wrong_type(key, **value, wanted);
  return array;
}

Result<std::int64_t> Metadata::integer(std::string_view key) const {
  const auto value = require(key);
  if (!value) return value.error();
  return std::visit(
      [&]<typename T>(const T& held) -> Result<std::int64_t> {
        if constexpr (kIsWhole<T>) {
          if (const auto wide = widened(held)) return *wide;
          return Error{ErrorCode::kOutOfRange,
                       fmt::format("metadata '{}' is too large", key),
                       source_,
                       scalar_text(held),
                       "at most 9223372036854775807",
                       ""};
        } else {
          return wrong_type(key, **value, "a whole number");
        }
      },
      **value);
}

Result<double> Metadata::number(std::string_view key) const {
  const auto value = require(key);
  if (!value) return value.error();
  return std::visit(
      [&]<typename T>(const T& held) -> Result<double> {
        if constexpr (kIsWhole<T> || std::is_floating_point_v<T>) {
          return static_cast<double>(held);
        } else {
          return wrong_type(key, **value, "a number");
        }
      },
      **value);
}

Result<bool> Metadata::boolean(std::string_view key) const {
  const auto value = require(key);
  if (!value) return value.error();
  if (const bool* held = std::get_if<bool>(*value)) return *held;
  return wrong_type(key, **value, "bool");
}

Result<std::string> Metadata::text(std::string_view key) const {
  const auto value = require(key);
  if (!value) return value.error();
  if (const auto* held = std::get_if<std::string>(*value)) return *held;
  return wrong_type(key, **value, "text");
}

Result<std::int64_t> Metadata::integer_or(std::string_view key, std::int64_t otherwise) const {
  return has(key) ? integer(key) : otherwise;
}
Result<double> Metadata::number_or(std::string_view key, double otherwise) const {
  return has(key) ? number(key) : otherwise;
}
Result<bool> Metadata::boolean_or(std::string_view key, bool otherwise) const {
  return has(key) ? boolean(key) : otherwise;
}
Result<std::string> Metadata::text_or(std::string_view key, std::string otherwise) const {
  return has(key) ? text(key) : std::move(otherwise);
}

Result<const TextTable*> Metadata::texts(std::string_view key) const {
  const auto array = require_array(key, "array of text");
  if (!array) return array.error();
  if (const auto* held = std::get_if<TextTable>(*array)) return held;
  return wrong_type(key, *find(key), "array of text");
}

Result<std::vector<std::int64_t>> Metadata::integers(std::string_view key) const {
  constexpr const char* kWanted = "array of whole numbers";
  const auto array = require_array(key, kWanted);
  if (!array) return array.error();
  return std::visit(
      [&]<typename V>(const V& elements) -> Result<std::vector<std::int64_t>> {
        if constexpr (kIsWhole<typename V::value_type>) {
          std::vector<std::int64_t> out;
          out.reserve(elements.size());
          for (const auto element : elements) {
            const auto wide = widened(element);
            if (!wide) {
              return Error{ErrorCode::kOutOfRange,
                           fmt::format("element {} of metadata '{}' is too large", out.size(), key),
                           source_,
                           scalar_text(element),
                           "at most 9223372036854775807",
                           ""};
            }
            out.push_back(*wide);
          }
          return out;
        } else {
          return wrong_type(key, *find(key), kWanted);
        }
      },
      **array);
}

Result<std::vector<float>> Metadata::floats(std::string_view key) const {
  constexpr const char* kWanted = "array of f32 or f64";
  const auto array = require_array(key, kWanted);
  if (!array) return array.error();
  return std::visit(
      [&]<typename V>(const V& elements) -> Result<std::vector<float>> {
        if constexpr (std::is_floating_point_v<typename V::value_type>) {
          std::vector<float> out;
          out.reserve(elements.size());
          for (const auto element : elements) out.push_back(static_cast<float>(element));
          return out;
        } else {
          return wrong_type(key, *find(key), kWanted);
        }
      },
      **array);
}

Result<std::vector<bool>> Metadata::booleans(std::string_view key) const {
  const auto array = require_array(key, "array of bool");
  if (!array) return array.error();
  if (const auto* held = std::get_if<std::vector<bool>>(*array)) return *held;
  return wrong_type(key, *find(key), "array of bool");
}

}  // namespace hone::formats

// Event handlers for the two JSON texts of safetensors.
// SPDX-License-Identifier: Apache-2.0
#include "formats/safetensors_header.h"

#include <limits>
#include <set>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "formats/tensor_record.h"

namespace hone::formats {
namespace {

struct NamedDType {
  std::string_view name;
  DType dtype;
};
constexpr NamedDType kNames[] = {{"F64", DType::kF64},   {"F32", DType::kF32}, {"F16", DType::kF16},
                                 {"BF16", DType::kBF16}, {"I64", DType::kI64}, {"I32", DType::kI32},
                                 {"I16", DType::kI16},   {"I8", DType::kI8},   {"U8", DType::kU8}};

constexpr const char* kDamaged = "get the file again: it seems damaged";
constexpr std::size_t kMostExtents = 8;

// What both handlers share: the error that stops the parse, and its text.
class Handler : public nlohmann::json_sax<nlohmann::json> {
 public:
  Handler(std::string where, std::uint64_t first_byte)
      : where_(std::move(where)), first_byte_(first_byte) {}

  bool null() override { return scalar("null"); }
  bool boolean(bool) override { return scalar("a boolean"); }
  bool number_integer(number_integer_t value) override { return scalar(fmt::format("{}", value)); }
  bool number_float(number_float_t, const string_t& text) override {
    return scalar(printable(text));
  }
  bool binary(binary_t&) override { return scalar("binary"); }

  bool parse_error(std::size_t position, const std::string& token,
                   const nlohmann::detail::exception&) override {
    error_ =
        Error{ErrorCode::kCorrupt,
              "the JSON text does not parse",
              fmt::format("{}, byte {}", where_, first_byte_ + (position > 0 ? position - 1 : 0)),
              printable(token),
              "JSON",
              kDamaged};
    return false;
  }

  const std::optional<Error>& error() const { return error_; }

 protected:
  // A value that stands where no value of its kind may stand.
  virtual bool scalar(std::string found) = 0;

  bool fail(std::string what, std::string found, std::string expected,
            ErrorCode code = ErrorCode::kCorrupt, std::string advice = kDamaged) {
    error_ = Error{
        code, std::move(what), where_, std::move(found), std::move(expected), std::move(advice)};
    return false;
  }

 private:
  std::string where_;
  std::uint64_t first_byte_;
  std::optional<Error> error_;
};

// {"__metadata__": {text: text}, name: {"dtype": text, "shape": [n], "data_offsets": [n, n]}}
class HeaderHandler final : public Handler {
 public:
  using Handler::Handler;

  bool start_object(std::size_t) override {
    if (depth_ == 2 || in_array_)
      return fail(what() + " is nested too deeply", "{", "a plain value");
    ++depth_;
    return true;
  }

  bool end_object() override {
    --depth_;
    if (depth_ != 1 || in_metadata_) return true;
    const SafetensorsEntry& entry = header.tensors.back();
    if (!entry.dtype || !entry.shape || entry.data_offsets.size() != 2) {
      return fail(what() + " is incomplete", "",
                  "\"dtype\", \"shape\" and \"data_offsets\" of two numbers");
    }
    return true;
  }

  bool key(string_t& name) override {
    if (depth_ == 1) {
      if (!names_.insert(name).second) {
        return fail(fmt::format("tensor '{}' is there twice", printable(name)), "",
                    "each name once");
      }
      in_metadata_ = name == "__metadata__";
      if (!in_metadata_) header.tensors.push_back({name, {}, {}, {}});
      fields_.clear();
      return true;
    }
    field_ = name;
    if (!fields_.insert(name).second) {
      return fail(what() + fmt::format(" has '{}' twice", printable(name)), "", "each key once");
    }
    if (!in_metadata_ && name != "dtype" && name != "shape" && name != "data_offsets") {
      return fail(what() + " has an unknown field", printable(name),
                  "dtype, shape or data_offsets");
    }
    return true;
  }

  bool string(string_t& text) override {
    if (depth_ == 2 && in_metadata_) {
      header.metadata[field_] = text;
      return true;
    }
    if (depth_ != 2 || in_array_ || field_ != "dtype") return scalar(printable(text));
    for (const NamedDType& known : kNames) {
      if (known.name == text) {
        header.tensors.back().dtype = known.dtype;
        return true;
      }
    }
    return fail(what() + " has an element type that hone does not know", printable(text),
                "F64, F32, F16, BF16, I64, I32, I16, I8 or U8", ErrorCode::kUnsupported,
                "convert the model to bfloat16 first");
  }

  bool start_array(std::size_t) override {
    const bool fits = depth_ == 2 && !in_metadata_ && !in_array_ && field_ != "dtype";
    if (!fits) return fail(what() + " has a list in the wrong place", "[", "a plain value");
    in_array_ = true;
    if (field_ == "shape") header.tensors.back().shape.emplace();
    return true;
  }

  bool end_array() override {
    in_array_ = false;
    return true;
  }

  bool number_unsigned(number_unsigned_t value) override {
    if (!in_array_) return scalar(fmt::format("{}", value));
    SafetensorsEntry& entry = header.tensors.back();
    if (field_ == "data_offsets") {
      if (entry.data_offsets.size() == 2) return scalar(fmt::format("a third offset, {}", value));
      entry.data_offsets.push_back(value);
      return true;
    }
    if (value > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()) ||
        entry.shape->size() == kMostExtents) {
      return fail(what() + " has an impossible shape", fmt::format("{}", value),
                  fmt::format("at most {} extents below 2^63", kMostExtents));
    }
    entry.shape->push_back(static_cast<std::int64_t>(value));
    return true;
  }

  SafetensorsHeader header;

 protected:
  bool scalar(std::string found) override {
    const char* expected = depth_ == 0         ? "an object"
                           : depth_ == 1       ? "an object that describes the tensor"
                           : in_metadata_      ? "text"
                           : field_ == "dtype" ? "the name of a type"
                                               : "a list of whole numbers";
    return fail(what() + " has a value of the wrong kind", std::move(found), expected);
  }

 private:
  std::string what() const {
    if (depth_ == 0 || (header.tensors.empty() && !in_metadata_)) return "the header";
    if (in_metadata_) return "__metadata__";
    return fmt::format("tensor '{}'", printable(header.tensors.back().name));
  }

  int depth_ = 0;
  bool in_metadata_ = false;
  bool in_array_ = false;
  std::string field_;
  std::set<std::string> names_;
  std::set<std::string> fields_;
};

// {"metadata": {…}, "weight_map": {tensor: file}}; other keys are skipped.
class IndexHandler final : public Handler {
 public:
  using Handler::Handler;
  static constexpr int kMostDepth = 16;

  bool start_object(std::size_t) override { return descend(); }
  bool start_array(std::size_t) override {
    return depth_ == 0 || (depth_ == 1 && in_map_) ? scalar("a list") : descend();
  }
  bool end_object() override {
    --depth_;
    return true;
  }
  bool end_array() override {
    --depth_;
    return true;
  }
  bool key(string_t& name) override {
    if (depth_ == 1) in_map_ = name == "weight_map";
    key_ = name;
    found_map_ = found_map_ || (depth_ == 1 && in_map_);
    return true;
  }
  bool number_unsigned(number_unsigned_t value) override {
    return scalar(fmt::format("{}", value));
  }
  bool string(string_t& text) override {
    if (depth_ != 2 || !in_map_) return scalar(printable(text));
    if (text.empty() || text.find_first_of("/\\") != std::string::npos || text == ".." ||
        text == ".") {
      return fail(
          fmt::format("tensor '{}' is said to be in a file that cannot be", printable(key_)),
          printable(text), "the name of a file in the same folder");
    }
    if (!weight_map.emplace(key_, text).second) {
      return fail(fmt::format("tensor '{}' is there twice", printable(key_)), "", "each name once");
    }
    return true;
  }

  bool found_map() const { return found_map_; }
  std::map<std::string, std::string> weight_map;

 protected:
  bool scalar(std::string found) override {
    if (depth_ > 0 && !(in_map_ && found_map_)) return true;
    return fail("the index has a value of the wrong kind", std::move(found),
                "an object whose \"weight_map\" gives each tensor a file name");
  }

 private:
  bool descend() {
    if (depth_ == kMostDepth || (depth_ == 2 && in_map_)) {
      return fail("the index is nested too deeply", "",
                  fmt::format("at most {} levels", kMostDepth));
    }
    ++depth_;
    return true;
  }

  int depth_ = 0;
  bool in_map_ = false;
  bool found_map_ = false;
  std::string key_;
};

}  // namespace

Result<SafetensorsHeader> parse_safetensors_header(std::string_view text, const std::string& where,
                                                   std::uint64_t first_byte) {
  HeaderHandler handler(where, first_byte);
  nlohmann::json::sax_parse(text.begin(), text.end(), &handler);
  if (handler.error()) return *handler.error();
  return std::move(handler.header);
}

Result<std::map<std::string, std::string>> parse_safetensors_index(std::string_view text,
                                                                   const std::string& where) {
  IndexHandler handler(where, 0);
  nlohmann::json::sax_parse(text.begin(), text.end(), &handler);
  if (handler.error()) return *handler.error();
  if (!handler.found_map() || handler.weight_map.empty()) {
    return Error{ErrorCode::kCorrupt,
                 "the index names no tensors",
                 where,
                 "",
                 "an object \"weight_map\" from tensors to files",
                 kDamaged};
  }
  return std::move(handler.weight_map);
}

std::string_view safetensors_dtype_name(DType dtype) {
  for (const NamedDType& known : kNames) {
    if (known.dtype == dtype) return known.name;
  }
  return {};
}

}  // namespace hone::formats

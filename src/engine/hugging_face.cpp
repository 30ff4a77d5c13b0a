// What config.json says, key by key of the family's table, then the cases that no table holds: rope
// scaling, windows, defaults that transformers leaves unwritten.
// SPDX-License-Identifier: Apache-2.0
#include "engine/hugging_face.h"

#include <fmt/format.h>

#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

#include "formats/tensor_record.h"

namespace hone::engine {
namespace {

using Json = nlohmann::json;
using models::ConfigKey;
using models::Family;

// Values that transformers' configuration classes assume where config.json is silent.
struct Default {
  std::string_view type;
  std::string_view key;
  double value;
};
constexpr std::array kDefaults = {
    Default{"llama", "rope_theta", 10000},
    Default{"llama", "rms_norm_eps", 1e-6},
    Default{"llama", "max_position_embeddings", 2048},
    Default{"qwen2", "rope_theta", 10000},
    Default{"qwen2", "rms_norm_eps", 1e-6},
    Default{"qwen2", "max_position_embeddings", 32768},
    Default{"qwen3", "rope_theta", 10000},
    Default{"qwen3", "rms_norm_eps", 1e-6},
    Default{"qwen3", "head_dim", 128},
    Default{"qwen3", "max_position_embeddings", 32768},
    Default{"gemma3_text", "rope_theta", 1'000'000},
    Default{"gemma3_text", "rope_local_base_freq", 10000},
    Default{"gemma3_text", "rms_norm_eps", 1e-6},
    Default{"gemma3_text", "num_attention_heads", 8},
    Default{"gemma3_text", "num_key_value_heads", 4},
    Default{"gemma3_text", "head_dim", 256},
    Default{"gemma3_text", "sliding_window", 4096},
    Default{"gemma3_text", "query_pre_attn_scalar", 256},
    Default{"gemma3_text", "max_position_embeddings", 131072},
    Default{"gpt2", "layer_norm_epsilon", 1e-5},
    Default{"gpt2", "n_positions", 1024},
};

class Reader {
 public:
  Reader(const Json& root, std::string where, std::string type)
      : root_(root), where_(std::move(where)), type_(std::move(type)) {}

  const Status& status() const { return status_; }

  const Json* find(const Json& object, const char* key) const {
    if (!object.is_object()) return nullptr;
    const auto found = object.find(key);
    return found == object.end() || found->is_null() ? nullptr : &*found;
  }
  const Json* find(const char* key) const { return find(root_, key); }

  std::optional<double> number(const Json& object, const std::string& key) {
    const Json* value = find(object, key.c_str());
    if (value == nullptr) return std::nullopt;
    if (!value->is_number() || !std::isfinite(value->get<double>())) {
      fail(ErrorCode::kCorrupt, key, *value, "a number");
      return std::nullopt;
    }
    return value->get<double>();
  }
  // With the default of the model's type.
  std::optional<double> number(const std::string& key) {
    if (const auto value = number(root_, key)) return value;
    for (const Default& entry : kDefaults) {
      if (entry.type == type_ && entry.key == key) return entry.value;
    }
    return std::nullopt;
  }
  std::string text(const Json& object, const char* key, std::string otherwise) {
    const Json* value = find(object, key);
    return value != nullptr && value->is_string() ? value->get<std::string>() : otherwise;
  }
  bool flag(const char* key, bool otherwise) {
    const Json* value = find(key);
    return value != nullptr && value->is_boolean() ? value->get<bool>() : otherwise;
  }
  void fail(ErrorCode code, const std::string& key, const Json& found, std::string expected) {
    if (!status_.ok()) return;
    const char* what = code == ErrorCode::kUnsupported
                           ? "the model's configuration has a value that hone does not know"
                           : "the model's configuration has a value that makes no sense";
    status_ = Error{code,
                    what,
                    fmt::format("{}, {}", where_, key),
                    found.dump(-1, ' ', false, Json::error_handler_t::replace).substr(0, 120),
                    std::move(expected),
                    ""};
  }
  void missing(const std::string& key) {
    if (!status_.ok()) return;
    status_ = Error{ErrorCode::kNotFound,
                    "the model's configuration lacks a key",
                    fmt::format("{}, {}", where_, key),
                    "no such key",
                    "a number",
                    ""};
  }
  // Unsupported unless the key is absent or has the value.
  void require(const char* key, const Json& only) {
    const Json* value = find(key);
    if (value != nullptr && *value != only) {
      fail(ErrorCode::kUnsupported, key, *value, only.dump());
    }
  }

 private:
  const Json& root_;
  std::string where_;
  std::string type_;
  Status status_;
};

class Converter {
 public:
  Converter(const Json& root, const std::string& where, const Family& family)
      : root_(root), reader_(root, where, std::string(family.hugging_face_type)), family_(family) {
    result_.family = &family;
    result_.metadata = formats::Metadata(where);
  }

  Result<HuggingFaceConfig> convert();

 private:
  std::string key(std::string_view name) const {
    return fmt::format("{}.{}", family_.architecture, name);
  }
  void set_integer(std::string_view name, double value, const std::string& from);
  void set_number(std::string_view name, double value) {
    result_.metadata.set(key(name), static_cast<float>(value));
  }
  void read_table();
  void read_activation();
  void read_heads();
  void read_rope();
  void read_scaling(const Json& scaling, const std::string& where);
  void read_llama3(const Json& scaling, const std::string& where);
  void read_windows();
  void read_family();
  void read_ends();

  const Json& root_;
  Reader reader_;
  const Family& family_;
  HuggingFaceConfig result_;
  double theta_ = 0;
  std::int64_t head_size_ = 0;
};

void Converter::set_integer(std::string_view name, double value, const std::string& from) {
  if (value < 0 || value > 4294967295.0 || value != std::floor(value)) {
    reader_.fail(ErrorCode::kCorrupt, from, Json(value), "a whole number from 0 to 4294967295");
    return;
  }
  result_.metadata.set(std::string(name), static_cast<std::uint32_t>(value));
}

void Converter::read_table() {
  for (const ConfigKey& entry : family_.keys) {
    const std::string from(entry.hugging_face);
    std::string to(entry.gguf);
    if (to.starts_with("*.")) to = key(to.substr(2));
    std::optional<double> value = reader_.number(from);
    // transformers: as many as query heads; four times the hidden size (GPT-2).
    if (!value && from == "num_key_value_heads") value = reader_.number("num_attention_heads");
    if (!value && from == "n_inner") {
      value = reader_.number("n_embd");
      if (value) *value *= 4;
    }
    if (!value) {
      const bool optional = from == "head_dim" || from == "vocab_size" || from == "rope_theta" ||
                            from == "rope_local_base_freq" || from == "sliding_window";
      if (!optional) reader_.missing(from);
      continue;
    }
    if (entry.kind == ConfigKey::Kind::kInteger) {
      set_integer(to, *value, from);
    } else {
      result_.metadata.set(to, static_cast<float>(*value));
    }
  }
}

void Converter::read_activation() {
  const bool gpt2 = family_.name == "gpt2";
  const bool gemma = family_.name == "gemma3";
  const char* name = gpt2 ? "activation_function" : gemma ? "hidden_activation" : "hidden_act";
  const std::string usual = gpt2 ? "gelu_new" : gemma ? "gelu_pytorch_tanh" : "silu";
  reader_.require(name, usual);
}

void Converter::read_heads() {
  const auto heads = reader_.number(family_.name == "gpt2" ? "n_head" : "num_attention_heads");
  const auto hidden = reader_.number(family_.name == "gpt2" ? "n_embd" : "hidden_size");
  if (!heads || !hidden || *heads < 1) return;  // reported by read_table
  const double each = reader_.number("head_dim").value_or(std::floor(*hidden / *heads));
  if (each < 2 || each > 4096) {
    reader_.fail(ErrorCode::kCorrupt, "head_dim", Json(each), "a size from 2 to 4096");
    return;
  }
  head_size_ = static_cast<std::int64_t>(each);
  if (family_.name == "gpt2") return;
  set_integer(key("attention.key_length"), each, "head_dim");
  set_integer(key("attention.value_length"), each, "head_dim");
  set_integer(key("rope.dimension_count"), each, "head_dim");
  reader_.require("partial_rotary_factor", 1.0);
}

// As transformers' _compute_llama3_parameters, and as GGUF converters store it: what a frequency is
// divided by.
void Converter::read_llama3(const Json& scaling, const std::string& where) {
  const auto value = [&](const char* name) {
    const auto found = reader_.number(scaling, name);
    if (!found) reader_.missing(fmt::format("{}.{}", where, name));
    return found.value_or(1);
  };
  const double factor = value("factor");
  const double low = value("low_freq_factor");
  const double high = value("high_freq_factor");
  const double old_context = value("original_max_position_embeddings");
  if (!(factor >= 1 && low > 0 && high > low && old_context > 0)) {
    reader_.fail(ErrorCode::kCorrupt, where, scaling, "factor >= 1, 0 < low < high");
    return;
  }
  constexpr double kTwoPi = 6.283185307179586;
  for (std::int64_t i = 0; i < head_size_ / 2; ++i) {
    const double exponent = 2.0 * static_cast<double>(i) / static_cast<double>(head_size_);
    const double wavelength = kTwoPi * std::pow(theta_, exponent);
    double divisor = 1;
    if (wavelength > old_context / low) {
      divisor = factor;
    } else if (wavelength >= old_context / high) {
      const double smooth = (old_context / wavelength - low) / (high - low);
      divisor = 1 / ((1 - smooth) / factor + smooth);
    }
    result_.rope_factors.push_back(static_cast<float>(divisor));
  }
}

void Converter::read_scaling(const Json& scaling, const std::string& where) {
  const std::string type =
      reader_.text(scaling, "rope_type", reader_.text(scaling, "type", "default"));
  if (type == "default") return;
  if (type == "linear") {
    const auto factor = reader_.number(scaling, "factor");
    if (!factor || *factor <= 0) {
      reader_.fail(ErrorCode::kCorrupt, where + ".factor", scaling, "a positive factor");
      return;
    }
    result_.metadata.set(key("rope.scaling.type"), std::string("linear"));
    set_number("rope.scaling.factor", *factor);
  } else if (type == "llama3" && family_.name != "gemma3") {
    read_llama3(scaling, where);
  } else {
    reader_.fail(ErrorCode::kUnsupported, where + ".rope_type", Json(type),
                 "default, linear or llama3");
  }
}

// Three styles: rope_theta beside rope_scaling; rope_parameters with both; rope_parameters of each
// kind of layer (Gemma 3).
void Converter::read_rope() {
  if (family_.name == "gpt2") return;
  theta_ = reader_.number("rope_theta").value_or(10000);
  const Json* parameters = reader_.find("rope_parameters");
  const Json* scaling = reader_.find("rope_scaling");
  std::string where = "rope_scaling";
  if (parameters != nullptr) {
    where = "rope_parameters";
    scaling = parameters;
    if (const Json* full = reader_.find(*parameters, "full_attention")) {
      where += ".full_attention";
      scaling = full;
      if (const Json* local = reader_.find(*parameters, "sliding_attention")) {
        if (const auto theta = reader_.number(*local, "rope_theta")) {
          set_number("rope.local.freq_base", *theta);
        }
        if (reader_.text(*local, "rope_type", "default") != "default") {
          reader_.fail(ErrorCode::kUnsupported, "rope_parameters.sliding_attention", *local,
                       "rope_type default");
        }
      }
    }
    if (const auto theta = reader_.number(*scaling, "rope_theta")) theta_ = *theta;
  }
  if (!(theta_ > 0)) {
    reader_.fail(ErrorCode::kCorrupt, "rope_theta", Json(theta_), "a positive number");
    return;
  }
  set_number("rope.freq_base", theta_);
  if (scaling == nullptr) return;
  if (!scaling->is_object()) {
    reader_.fail(ErrorCode::kCorrupt, where, *scaling, "an object");
    return;
  }
  read_scaling(*scaling, where);
}

// Layer i is full where (i + 1) % period == 0; GGUF readers assume a period of 6 for Gemma 3.
void Converter::read_windows() {
  constexpr std::int64_t kUsual = 6;
  std::int64_t period = kUsual;
  const char* name = reader_.find("sliding_window_pattern") != nullptr ? "sliding_window_pattern"
                                                                       : "_sliding_window_pattern";
  if (const auto given = reader_.number(root_, name)) {
    if (*given < 1 || *given > 4096) {
      reader_.fail(ErrorCode::kCorrupt, name, Json(*given), "a period of at least 1");
      return;
    }
    period = static_cast<std::int64_t>(*given);
  }
  if (const Json* types = reader_.find("layer_types")) {
    if (!types->is_array()) {
      reader_.fail(ErrorCode::kCorrupt, "layer_types", *types, "a list");
      return;
    }
    const auto count = static_cast<std::int64_t>(types->size());
    const auto full = [&](std::int64_t layer) {
      return (*types)[static_cast<std::size_t>(layer)] == Json("full_attention");
    };
    std::int64_t first = 0;
    while (first < count && !full(first)) ++first;
    // Without any full layer every period beyond the last layer says the same.
    if (first < count) {
      period = first + 1;
    } else if (count >= period) {
      period = count + 1;
    }
    for (std::int64_t layer = 0; layer < count; ++layer) {
      const Json& type = (*types)[static_cast<std::size_t>(layer)];
      const bool known = type == Json("full_attention") || type == Json("sliding_attention");
      if (known && full(layer) == ((layer + 1) % period == 0)) continue;
      reader_.fail(ErrorCode::kUnsupported, fmt::format("layer_types[{}]", layer), type,
                   fmt::format("full_attention in every layer {} of {}, sliding_attention in the "
                               "others",
                               period, period));
      return;
    }
  }
  if (period != kUsual) {
    set_integer(key("attention.sliding_window_pattern"), static_cast<double>(period), name);
  }
}

void Converter::read_family() {
  const auto& name = family_.name;
  if (name == "gemma3") {
    read_windows();
    const double scalar = reader_.number("query_pre_attn_scalar").value_or(256);
    if (!(scalar > 0)) {
      reader_.fail(ErrorCode::kCorrupt, "query_pre_attn_scalar", Json(scalar), "above 0");
      return;
    }
    set_number("attention.scale", 1 / std::sqrt(scalar));
    for (const char* cap : {"final_logit_softcapping", "attn_logit_softcapping"}) {
      if (const auto value = reader_.number(root_, cap)) set_number(cap, *value);
    }
    reader_.require("use_bidirectional_attention", false);
  } else if (name == "gpt2") {
    reader_.require("scale_attn_weights", true);
    reader_.require("scale_attn_by_inverse_layer_idx", false);
    reader_.require("add_cross_attention", false);
  } else {
    reader_.require("use_sliding_window", false);
    if (name == "llama") {
      reader_.require("pretraining_tp", 1);
      if (const Json* window = reader_.find("sliding_window")) {  // Mistral's first edition
        reader_.fail(ErrorCode::kUnsupported, "sliding_window", *window, "none");
      }
    }
  }
}

void Converter::read_ends() {
  const Json* ends = reader_.find("eos_token_id");
  if (ends == nullptr) return;
  const Json list = ends->is_array() ? *ends : Json::array({*ends});
  for (const Json& id : list) {
    if (id.is_number_integer()) result_.end_of_generation.push_back(id.get<std::int64_t>());
  }
}

Result<HuggingFaceConfig> Converter::convert() {
  result_.metadata.set("general.architecture", std::string(family_.architecture));
  result_.metadata.set("general.type", std::string("model"));
  read_table();
  read_activation();
  read_heads();
  read_rope();
  read_family();
  read_ends();
  result_.tied =
      reader_.flag("tie_word_embeddings", family_.name == "gemma3" || family_.name == "gpt2");
  if (!reader_.status().ok()) return reader_.status().error();
  return std::move(result_);
}

}  // namespace

Result<HuggingFaceConfig> read_hugging_face_config(std::string_view config_json,
                                                   const std::string& where) {
  const Json root = Json::parse(config_json, nullptr, false);
  if (!root.is_object()) {
    return Error{ErrorCode::kCorrupt,
                 "the model's configuration is no JSON object",
                 where,
                 fmt::format("'{}'", formats::printable(config_json.substr(0, 40))),
                 "'{ … }'",
                 "download the file again: it may be truncated"};
  }
  const auto type_of = root.find("model_type");
  std::string type =
      type_of != root.end() && type_of->is_string() ? type_of->get<std::string>() : "";
  if (type == "mistral") type = "llama";  // the same graph, where no layer has a window
  const Family* family = models::find_hugging_face_family(type);
  if (family == nullptr) {
    std::vector<std::string_view> known;
    for (const Family* each : models::all_families()) known.push_back(each->hugging_face_type);
    return Error{ErrorCode::kUnsupported,
                 "hone does not know this kind of model",
                 where + ", model_type",
                 fmt::format("'{}'", type),
                 fmt::format("one of {}", fmt::join(known, ", ")),
                 ""};
  }
  return Converter(root, where, *family).convert();
}

}  // namespace hone::engine

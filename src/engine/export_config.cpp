// GGUF metadata as config.json: the family's table read the other way, then what no table holds.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "engine/export.h"

namespace hone::engine {
namespace {

using Json = nlohmann::ordered_json;
using formats::Metadata;
using models::ConfigKey;
using models::Family;

// The shortest decimal that is the same f32: 1e-05, not 9.999999747378752e-06.
double as_written(double value) {
  return std::strtod(fmt::format("{}", static_cast<float>(value)).c_str(), nullptr);
}

class Exporter {
 public:
  Exporter(const ModelSource& source, const Family& family)
      : source_(source), metadata_(source.metadata()), family_(family) {}

  Status read_table();
  Status read_rope();
  Status read_family();
  void read_tokens();

  Json config;

 private:
  std::string key(std::string_view name) const {
    return fmt::format("{}.{}", family_.architecture, name);
  }
  Status read_factors();

  const ModelSource& source_;
  const Metadata& metadata_;
  const Family& family_;
};

Status Exporter::read_table() {
  for (const ConfigKey& entry : family_.keys) {
    std::string from(entry.gguf);
    if (from.starts_with("*.")) from = key(from.substr(2));
    if (!metadata_.has(from)) continue;
    const std::string to(entry.hugging_face);
    if (entry.kind == ConfigKey::Kind::kInteger) {
      const auto value = metadata_.integer(from);
      if (!value) return value.error();
      config[to] = *value;
    } else {
      const auto value = metadata_.number(from);
      if (!value) return value.error();
      config[to] = as_written(*value);
    }
  }
  return {};
}

// Divisors of frequencies are numbers in GGUF and a rule in transformers: of "llama3" scaling the
// rule is found again from its fixed points. Other divisors have no words there.
Status Exporter::read_factors() {
  const formats::TensorRecord* tensor = source_.find("rope_freqs.weight");
  if (tensor == nullptr) return {};
  const auto error = [&](const std::string& found) {
    return Error{ErrorCode::kUnsupported,
                 "the model's rope factors cannot be written as config.json",
                 "tensor 'rope_freqs.weight'",
                 found,
                 "those of Llama 3 scaling: 8192 old positions, low 1, high 4",
                 ""};
  };
  if (tensor->dtype != DType::kF32 || tensor->elements() < 2) return error("no f32 vector");
  std::vector<float> factors(static_cast<std::size_t>(tensor->elements()));
  std::memcpy(factors.data(), tensor->data.data(), factors.size() * sizeof(float));
  const double theta = config.value("rope_theta", 10000.0);
  const auto size = static_cast<double>(2 * factors.size());
  const double factor = factors.back();
  // Powers of two as old contexts, and the two bounds that published models use.
  for (double old_context = 32; old_context <= 1 << 20; old_context *= 2) {
    double worst = 0;
    for (std::size_t i = 0; i < factors.size(); ++i) {
      const double wavelength =
          6.283185307179586 * std::pow(theta, 2.0 * static_cast<double>(i) / size);
      double divisor = 1;
      if (wavelength > old_context) {
        divisor = factor;
      } else if (wavelength >= old_context / 4) {
        const double smooth = (old_context / wavelength - 1) / 3;
        divisor = 1 / ((1 - smooth) / factor + smooth);
      }
      worst = std::max(worst, std::abs(divisor / factors[i] - 1));
    }
    constexpr double kClose = 1e-4;  // converters compute the powers in f32
    if (worst > kClose) continue;
    config["rope_scaling"] = {
        {"rope_type", "llama3"},
        {"factor", as_written(factor)},
        {"low_freq_factor", 1.0},
        {"high_freq_factor", 4.0},
        {"original_max_position_embeddings", static_cast<std::int64_t>(old_context)}};
    return {};
  }
  return error("other factors");
}

Status Exporter::read_rope() {
  HONE_RETURN_IF_ERROR(read_factors());
  const auto type = metadata_.text_or(key("rope.scaling.type"), "none");
  if (!type) return type.error();
  if (*type == "none") return {};
  const auto factor = metadata_.number_or(key("rope.scaling.factor"), 1);
  if (!factor) return factor.error();
  if (*type != "linear") {
    return Error{ErrorCode::kUnsupported,  "hone does not know this rope scaling",
                 key("rope.scaling.type"), *type,
                 "none or linear",         ""};
  }
  config["rope_scaling"] = {{"rope_type", "linear"}, {"factor", as_written(*factor)}};
  return {};
}

Status Exporter::read_family() {
  const auto bias = [this](const char* name) { return source_.find(name) != nullptr; };
  if (family_.name == "gpt2") {
    config["activation_function"] = "gelu_new";
    return {};
  }
  config["attention_bias"] = bias("blk.0.attn_q.bias") && family_.name != "qwen2";
  if (family_.name != "gemma3") {
    config["hidden_act"] = "silu";
    return {};
  }
  config["hidden_activation"] = "gelu_pytorch_tanh";
  // Defaults of GGUF's readers for Gemma 3.
  const auto period = metadata_.integer_or(key("attention.sliding_window_pattern"), 6);
  if (!period) return period.error();
  const auto local = metadata_.number_or(key("rope.local.freq_base"), 10000);
  if (!local) return local.error();
  const double head_size = config.value("head_dim", 256.0);
  const auto scale = metadata_.number_or(key("attention.scale"), 1 / std::sqrt(head_size));
  if (!scale) return scale.error();
  config["sliding_window_pattern"] = *period;
  config["rope_local_base_freq"] = as_written(*local);
  const double scalar = 1 / (*scale * *scale);
  const double whole = std::round(scalar);
  if (std::abs(scalar / whole - 1) < 1e-5) {  // the scale is an f32
    config["query_pre_attn_scalar"] = static_cast<std::int64_t>(whole);
  } else {
    config["query_pre_attn_scalar"] = scalar;
  }
  Json types = Json::array();
  for (std::int64_t layer = 0; *period > 0 && layer < config.value("num_hidden_layers", 0);
       ++layer) {
    types.push_back((layer + 1) % *period == 0 ? "full_attention" : "sliding_attention");
  }
  config["layer_types"] = types;
  for (const char* cap : {"final_logit_softcapping", "attn_logit_softcapping"}) {
    const auto value = metadata_.number_or(key(cap), 0);
    if (!value) return value.error();
    if (*value > 0) config[cap] = *value;
  }
  return {};
}

void Exporter::read_tokens() {
  for (const char* name : {"bos", "eos"}) {
    const auto id = metadata_.integer_or(fmt::format("tokenizer.ggml.{}_token_id", name), -1);
    if (id && *id >= 0) config[fmt::format("{}_token_id", name)] = *id;
  }
  if (const formats::TensorRecord* embedding = source_.find("token_embd.weight")) {
    if (!embedding->shape.empty()) config["vocab_size"] = embedding->shape[0];
  }
  config["tie_word_embeddings"] = source_.find("output.weight") == nullptr;
}

}  // namespace

Result<std::string> hugging_face_config(const ModelSource& source, const Family& family,
                                        DType type) {
  Exporter exporter(source, family);
  exporter.config = {{"architectures", {family.hugging_face_class}},
                     {"model_type", family.hugging_face_type}};
  Status status = exporter.read_table();
  if (status.ok() && family.name != "gpt2") status = exporter.read_rope();
  if (status.ok()) status = exporter.read_family();
  if (!status.ok()) return status.error().in(source.path());
  exporter.read_tokens();
  const char* name = type == DType::kF32 ? "float32" : type == DType::kF16 ? "float16" : "bfloat16";
  exporter.config["torch_dtype"] = name;
  return exporter.config.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace hone::engine

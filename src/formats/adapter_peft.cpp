// SPDX-License-Identifier: Apache-2.0
#include "formats/adapter_peft.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/file.h"
#include "formats/safetensors.h"
#include "quant/codec.h"

namespace hone::formats {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr const char* kConfigName = "adapter_config.json";
constexpr const char* kTensorsName = "adapter_model.safetensors";
constexpr std::uintmax_t kMostConfigBytes = 16 << 20;
// What PEFT puts in front of the model's own names.
constexpr const char* kPromptName = "prompt_embeddings";
constexpr std::string_view kPrefix = "base_model.model.";

struct Config {
  std::string base;
  double alpha = 8;
  bool rank_stabilized = false;
  bool dora = false;
  bool prompt = false;
  std::int64_t virtual_tokens = 0;
  std::vector<std::pair<std::string, double>> alpha_pattern;

  double alpha_of(std::string_view module) const {
    for (const auto& [pattern, value] : alpha_pattern) {
      const bool ends =
          module.ends_with(pattern) &&
          (module.size() == pattern.size() || module[module.size() - pattern.size() - 1] == '.');
      if (ends) return value;
    }
    return alpha;
  }
  // With which alpha / rank is the module's scale.
  double effective_alpha(std::string_view module, std::int64_t r) const {
    return alpha_of(module) * (rank_stabilized ? std::sqrt(static_cast<double>(r)) : 1.0);
  }
};

Error bad(ErrorCode code, std::string what, const std::string& where, std::string found,
          std::string expected, std::string advice = "") {
  return Error{
      code, std::move(what), where, printable(found), std::move(expected), std::move(advice)};
}

const Json* find(const Json& root, const char* key) {
  const auto at = root.find(key);
  return at == root.end() || at->is_null() ? nullptr : &*at;
}

// Features that would be lost without a word.
Status refuse_unknown(const Json& root, const std::string& where) {
  const Json* type = find(root, "peft_type");
  if (type != nullptr && *type == "PROMPT_TUNING") {
    const Json* modules = find(root, "num_transformer_submodules");
    if (modules == nullptr || *modules == 1) return {};
    return bad(ErrorCode::kUnsupported, "the soft prompt is of an encoder and a decoder",
               where + ", num_transformer_submodules", modules->dump(), "1");
  }
  if (type == nullptr || *type != "LORA") {
    return bad(ErrorCode::kUnsupported, "this kind of PEFT adapter is not known",
               where + ", peft_type", type == nullptr ? "" : type->dump(), "LORA or PROMPT_TUNING");
  }
  // Each changes what is computed, or which weights take part.
  for (const char* key : {"lora_bias", "use_qalora", "use_bdlora", "layer_replication",
                          "trainable_token_indices", "target_parameters", "alora_invocation_tokens",
                          "arrow_config", "kasa_config", "monteclora_config", "velora_config"}) {
    const Json* flag = find(root, key);
    if (flag != nullptr && *flag != false && !flag->empty()) {
      return bad(ErrorCode::kUnsupported, "the adapter uses a form that is not known",
                 fmt::format("{}, {}", where, key), flag->dump(), "false",
                 "merge it with PEFT and convert the model");
    }
  }
  if (const Json* bias = find(root, "bias"); bias != nullptr && *bias != "none") {
    return bad(ErrorCode::kUnsupported, "the adapter changes biases too", where + ", bias",
               bias->dump(), "\"none\"", "merge it with PEFT and convert the model");
  }
  if (const Json* whole = find(root, "modules_to_save"); whole != nullptr && !whole->empty()) {
    return bad(ErrorCode::kUnsupported, "the adapter brings whole modules along",
               where + ", modules_to_save", whole->dump(), "none",
               "merge it with PEFT and convert the model");
  }
  return {};
}

Result<Config> read_config(const std::string& path) {
  std::error_code code;
  const auto size = fs::file_size(path, code);
  if (code) {
    return bad(ErrorCode::kNotFound, "the folder holds no PEFT adapter", path, "",
               "adapter_config.json and adapter_model.safetensors");
  }
  if (size > kMostConfigBytes) {
    return bad(ErrorCode::kOutOfRange, "the adapter's configuration is too large", path,
               fmt::format("{} bytes", size), fmt::format("at most {}", kMostConfigBytes));
  }
  const auto text = read_file(path);
  if (!text) return text.error();
  const Json root = Json::parse(*text, nullptr, false);
  if (!root.is_object()) {
    return bad(ErrorCode::kCorrupt, "the adapter's configuration does not parse", path, "",
               "a JSON object");
  }
  HONE_RETURN_IF_ERROR(refuse_unknown(root, path));
  Config config;
  if (const Json* base = find(root, "base_model_name_or_path"); base && base->is_string()) {
    config.base = base->get<std::string>();
  }
  config.prompt = root.value("peft_type", "") == "PROMPT_TUNING";
  if (const Json* tokens = find(root, "num_virtual_tokens"); tokens && tokens->is_number()) {
    config.virtual_tokens = tokens->get<std::int64_t>();
  }
  const auto number = [&](const char* key, double& value) -> Status {
    const Json* found = find(root, key);
    if (found == nullptr) return {};
    if (!found->is_number() || !std::isfinite(found->get<double>())) {
      return bad(ErrorCode::kCorrupt, "the adapter's configuration has a value without sense",
                 fmt::format("{}, {}", path, key), found->dump(), "a number");
    }
    value = found->get<double>();
    return {};
  };
  HONE_RETURN_IF_ERROR(number("lora_alpha", config.alpha));
  const Json* stabilized = find(root, "use_rslora");
  config.rank_stabilized = stabilized != nullptr && *stabilized == true;
  const Json* dora = find(root, "use_dora");
  config.dora = dora != nullptr && *dora == true;
  if (const Json* pattern = find(root, "alpha_pattern"); pattern && pattern->is_object()) {
    for (const auto& [key, value] : pattern->items()) {
      // A key is a regular expression in PEFT; nearly all are plain names.
      if (!value.is_number() || key.find_first_of("^$*+?()[]{}|\\") != key.npos) {
        return bad(ErrorCode::kUnsupported, "this pattern of alphas is not known",
                   path + ", alpha_pattern", key, "plain names of modules, and numbers");
      }
      config.alpha_pattern.emplace_back(key, value.get<double>());
    }
  }
  return config;
}

struct Part {
  std::string module;
  bool is_a = false;
  bool is_magnitude = false;
};

// "base_model.model.<module>.lora_A.weight", in older files with the adapter's name before .weight.
std::optional<Part> part_of(std::string_view name) {
  if (!name.starts_with(kPrefix)) return std::nullopt;
  name.remove_prefix(kPrefix.size());
  constexpr std::string_view kMagnitude = ".lora_magnitude_vector";
  if (const std::size_t at = name.rfind(kMagnitude); at != name.npos && at > 0) {
    return Part{std::string(name.substr(0, at)), false, true};
  }
  for (const std::string_view marker :
       {std::string_view(".lora_A."), std::string_view(".lora_B.")}) {
    const std::size_t at = name.rfind(marker);
    if (at == name.npos || at == 0) continue;
    const std::string_view rest = name.substr(at + marker.size());
    if (rest != "weight" && rest != "default.weight") continue;
    return Part{std::string(name.substr(0, at)), marker == ".lora_A.", false};
  }
  return std::nullopt;
}

std::string weight_name(const std::string& module) { return module + ".weight"; }

std::string module_of(const std::string& weight) {
  constexpr std::string_view kEnd = ".weight";
  return weight.ends_with(kEnd) ? weight.substr(0, weight.size() - kEnd.size()) : weight;
}

// One alpha with which alpha / rank is every weight's scale, if there is one; else B takes it in.
void settle_scales(const Config& config, Adapter& adapter) {
  std::optional<double> common;
  bool uniform = true;
  for (const auto& [name, weight] : adapter.weights) {
    const double alpha = config.effective_alpha(module_of(name), weight.rank);
    if (!common) common = alpha;
    uniform = uniform && alpha == *common;
  }
  adapter.alpha = common.value_or(config.alpha);
  if (uniform && adapter.alpha != 0) return;
  adapter.alpha = 0;  // scale 1
  for (auto& [name, weight] : adapter.weights) {
    const double scale =
        config.effective_alpha(module_of(name), weight.rank) / static_cast<double>(weight.rank);
    for (float& value : weight.b) value *= static_cast<float>(scale);
  }
}

Json config_of(const Adapter& adapter, const PeftWriteOptions& options) {
  std::map<std::int64_t, std::int64_t> counts;
  for (const auto& [name, weight] : adapter.weights) ++counts[weight.rank];
  std::int64_t rank = 0;
  std::int64_t most = 0;
  for (const auto& [value, count] : counts) {
    if (count > most) rank = value;
    most = std::max(most, count);
  }
  Json ranks = Json::object();
  Json alphas = Json::object();
  Json modules = Json::array();
  for (const auto& [name, weight] : adapter.weights) {
    const std::string module = module_of(name);
    modules.push_back(module);
    if (weight.rank == rank) continue;
    ranks[module] = weight.rank;
    if (adapter.alpha == 0) alphas[module] = weight.rank;
  }
  return Json{{"peft_type", "LORA"},
              {"task_type", "CAUSAL_LM"},
              {"base_model_name_or_path", adapter.base},
              {"r", rank},
              {"lora_alpha", adapter.alpha == 0 ? static_cast<double>(rank) : adapter.alpha},
              {"lora_dropout", 0.0},
              {"bias", "none"},
              {"fan_in_fan_out", options.fan_in_fan_out},
              {"inference_mode", true},
              {"init_lora_weights", true},
              {"modules_to_save", nullptr},
              {"use_dora", adapter.kind == AdapterKind::kDora},
              {"use_rslora", false},
              {"rank_pattern", ranks},
              {"alpha_pattern", alphas},
              {"target_modules", modules}};
}

Json prompt_config_of(const Adapter& adapter, const PeftWriteOptions& options) {
  return Json{{"peft_type", "PROMPT_TUNING"},
              {"task_type", "CAUSAL_LM"},
              {"base_model_name_or_path", adapter.base},
              {"num_virtual_tokens", adapter.virtual_tokens},
              {"token_dim", adapter.hidden},
              {"num_transformer_submodules", 1},
              {"num_layers", options.layers},
              {"num_attention_heads", options.heads},
              {"prompt_tuning_init", "RANDOM"},
              {"inference_mode", true}};
}

Result<Adapter> read_prompt(const Config& config, const Safetensors& file,
                            const std::string& path) {
  const auto tensors = file.tensors();
  const bool one = tensors.size() == 1 && tensors[0].name == kPromptName &&
                   tensors[0].shape.size() == 2 && tensors[0].shape[0] == config.virtual_tokens;
  if (!one) {
    return bad(
        ErrorCode::kCorrupt, "the file holds no soft prompt", path,
        tensors.empty() ? "no tensors" : tensors[0].name + " " + shape_text(tensors[0].shape),
        fmt::format("one tensor '{}' ({}, C)", kPromptName, config.virtual_tokens));
  }
  auto values = quant::dequantize(tensors[0].dtype, tensors[0].data);
  if (!values) return values.error().in(path);
  Adapter adapter;
  adapter.kind = AdapterKind::kPrompt;
  adapter.base = config.base;
  adapter.virtual_tokens = config.virtual_tokens;
  adapter.hidden = tensors[0].shape[1];
  adapter.prompt = *std::move(values);
  const Status sound = check_adapter(adapter);
  if (!sound) return sound.error().in(path);
  return adapter;
}

Status make_folder(const std::string& path) {
  std::error_code code;
  if (fs::exists(path, code) && !(fs::is_directory(path, code) && fs::is_empty(path, code))) {
    return bad(ErrorCode::kInvalidArgument, "the folder to write exists and is not empty", path, "",
               "a new folder", "remove it, or name another");
  }
  fs::create_directories(path, code);
  if (!code) return {};
  return bad(ErrorCode::kIo, "cannot make the folder", path, code.message(), "");
}

}  // namespace

Result<Adapter> read_adapter_peft(const std::string& folder) {
  const auto config = read_config((fs::path(folder) / kConfigName).string());
  if (!config) return config.error();
  const std::string path = (fs::path(folder) / kTensorsName).string();
  const auto file = Safetensors::open(path);
  if (!file) return file.error();
  if (config->prompt) return read_prompt(*config, *file, path);
  Adapter adapter;
  adapter.base = config->base;
  if (config->dora) adapter.kind = AdapterKind::kDora;
  for (const TensorRecord& tensor : file->tensors()) {
    const auto part = part_of(tensor.name);
    if (!part) {
      return bad(ErrorCode::kUnsupported, "the adapter has a tensor that is not known", path,
                 tensor.name, "base_model.model.<module>.lora_A.weight and lora_B.weight",
                 "merge it with PEFT and convert the model");
    }
    if (tensor.shape.size() != (part->is_magnitude ? 1U : 2U) || tensor.elements() <= 0) {
      return bad(ErrorCode::kCorrupt, "a tensor of the adapter has the wrong shape",
                 path + ", " + printable(tensor.name), shape_text(tensor.shape),
                 part->is_magnitude ? "one dimension" : "two dimensions");
    }
    auto values = quant::dequantize(tensor.dtype, tensor.data);
    if (!values) return values.error().in(path + ", " + printable(tensor.name));
    AdapterWeight& weight = adapter.weights[weight_name(part->module)];
    if (part->is_magnitude) {
      weight.magnitude = *std::move(values);
    } else if (part->is_a) {
      weight.rank = tensor.shape[0];
      weight.inputs = tensor.shape[1];
      weight.a = *std::move(values);
    } else {
      weight.outputs = tensor.shape[0];
      weight.b = *std::move(values);
    }
  }
  const Status sound = check_adapter(adapter);
  if (!sound) return sound.error().in(path);
  settle_scales(*config, adapter);
  return adapter;
}

Status write_adapter_peft(const std::string& folder, const Adapter& adapter,
                          const PeftWriteOptions& options) {
  HONE_RETURN_IF_ERROR(check_adapter(adapter));
  if (adapter.kind == AdapterKind::kPooled) {
    return bad(ErrorCode::kUnsupported, "PEFT does not know this kind of adapter", folder,
               std::string(adapter_kind_name(adapter.kind)), "lora",
               "merge it into the model: `hone merge`");
  }
  std::vector<SafetensorsTensorToWrite> tensors;
  const bool prompt = adapter.kind == AdapterKind::kPrompt;
  if (prompt) {
    tensors.push_back({kPromptName,
                       DType::kF32,
                       {adapter.virtual_tokens, adapter.hidden},
                       std::as_bytes(std::span(adapter.prompt)),
                       nullptr});
  }
  for (const auto& [name, weight] : adapter.weights) {
    const std::string module = std::string(kPrefix) + module_of(name);
    tensors.push_back({module + ".lora_A.weight",
                       DType::kF32,
                       {weight.rank, weight.inputs},
                       std::as_bytes(std::span(weight.a)),
                       nullptr});
    tensors.push_back({module + ".lora_B.weight",
                       DType::kF32,
                       {weight.outputs, weight.rank},
                       std::as_bytes(std::span(weight.b)),
                       nullptr});
    if (weight.magnitude.empty()) continue;
    tensors.push_back({module + ".lora_magnitude_vector",
                       DType::kF32,
                       {weight.outputs},
                       std::as_bytes(std::span(weight.magnitude)),
                       nullptr});
  }
  HONE_RETURN_IF_ERROR(make_folder(folder));
  const fs::path at(folder);
  Status status = write_safetensors((at / kTensorsName).string(), tensors, {{"format", "pt"}});
  if (status.ok()) {
    const Json config = prompt ? prompt_config_of(adapter, options) : config_of(adapter, options);
    const std::string text = config.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
    status = write_file_atomically((at / kConfigName).string(), text);
  }
  if (status.ok()) return {};
  std::error_code ignored;
  fs::remove(at / kTensorsName, ignored);
  fs::remove(at, ignored);  // it was empty or absent before
  return status;
}

}  // namespace hone::formats

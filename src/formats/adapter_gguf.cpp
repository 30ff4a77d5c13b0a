// Adapters in GGUF files.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <span>

#include "formats/adapter.h"
#include "quant/codec.h"

namespace hone::formats {
namespace {

constexpr std::string_view kSuffixA = ".lora_a";
constexpr std::string_view kSuffixB = ".lora_b";
constexpr std::string_view kSuffixMagnitude = ".lora_m";
constexpr std::string_view kPromptName = "soft_prompt.weight";

Error broken(std::string what, std::string found, std::string expected) {
  return Error{ErrorCode::kCorrupt,
               std::move(what),
               "",
               std::move(found),
               std::move(expected),
               "make the adapter again with the program that it came from"};
}

Status check_kind(const Metadata& metadata, Adapter& adapter) {
  const auto type = metadata.text_or("general.type", "model");
  if (!type) return type.error();
  if (*type != "adapter") {
    return Error{ErrorCode::kUnsupported,
                 "the file holds no adapter",
                 "general.type",
                 printable(*type),
                 "adapter",
                 "give the file of an adapter, such as llama.cpp's convert_lora_to_gguf makes"};
  }
  const auto kind = metadata.text("adapter.type");
  if (!kind) return kind.error();
  constexpr AdapterKind kKinds[] = {AdapterKind::kLora, AdapterKind::kPooled, AdapterKind::kDora,
                                    AdapterKind::kPrompt};
  const auto* const known = std::ranges::find(kKinds, *kind, adapter_kind_name);
  if (known == std::end(kKinds)) {
    return Error{ErrorCode::kUnsupported, "this kind of adapter is not known", "adapter.type",
                 printable(*kind),        "lora, pooled, dora or prompt",      ""};
  }
  adapter.kind = *known;
  if (adapter.kind == AdapterKind::kPooled) {
    const auto columns = metadata.integer("adapter.pooled.columns");
    if (!columns) return columns.error();
    if (*columns != kPoolColumns) {
      return Error{ErrorCode::kUnsupported,         "the adapter pools another number of columns",
                   "adapter.pooled.columns",        fmt::format("{}", *columns),
                   fmt::format("{}", kPoolColumns), ""};
    }
  }
  if (metadata.has("adapter.alora.invocation_tokens")) {
    return Error{
        ErrorCode::kUnsupported,           "the adapter wants to be switched on by certain tokens",
        "adapter.alora.invocation_tokens", "",
        "an adapter that is always on",    ""};
  }
  return {};
}

// The weight's name, and which of its tensors it is.
struct Part {
  std::string weight;
  bool is_a = false;
  bool is_magnitude = false;
};

Result<Part> part_of(const TensorRecord& tensor) {
  const std::string_view name = tensor.name;
  if (name.ends_with(kSuffixMagnitude) && name.size() > kSuffixMagnitude.size() &&
      tensor.shape.size() == 1) {
    return Part{std::string(name.substr(0, name.size() - kSuffixMagnitude.size())), false, true};
  }
  const bool is_a = name.ends_with(kSuffixA);
  if ((!is_a && !name.ends_with(kSuffixB)) || name.size() <= kSuffixA.size()) {
    return broken(fmt::format("the adapter has a tensor '{}' that belongs to no pair",
                              printable(tensor.name)),
                  "", "names that end in .lora_a and .lora_b");
  }
  if (tensor.shape.size() != 2 || tensor.elements() <= 0) {
    return broken(fmt::format("the adapter's tensor '{}' is no matrix", printable(tensor.name)),
                  shape_text(tensor.shape), "two dimensions");
  }
  return Part{std::string(name.substr(0, name.size() - kSuffixA.size())), is_a, false};
}

// The one tensor of a soft prompt.
Status read_prompt(const GgufFile& file, Adapter& adapter) {
  const bool one = file.tensors().size() == 1 && file.tensors()[0].name == kPromptName &&
                   file.tensors()[0].shape.size() == 2;
  if (!one) {
    return broken("the file holds no soft prompt", fmt::format("{} tensors", file.tensors().size()),
                  fmt::format("one tensor '{}' (P, C)", kPromptName));
  }
  const TensorRecord& tensor = file.tensors()[0];
  auto values = quant::dequantize(tensor.dtype, tensor.data);
  if (!values) return values.error();
  adapter.virtual_tokens = tensor.shape[0];
  adapter.hidden = tensor.shape[1];
  adapter.prompt = *std::move(values);
  return {};
}

Status check_prompt(const Adapter& adapter) {
  const std::int64_t tokens = adapter.virtual_tokens;
  const bool whole = tokens > 0 && tokens <= kMostVirtualTokens && adapter.hidden > 0 &&
                     adapter.weights.empty() &&
                     static_cast<std::int64_t>(adapter.prompt.size()) / tokens == adapter.hidden &&
                     static_cast<std::int64_t>(adapter.prompt.size()) % tokens == 0;
  if (!whole) {
    return broken("the soft prompt is not whole",
                  fmt::format("{} virtual tokens of {}, {} numbers", tokens, adapter.hidden,
                              adapter.prompt.size()),
                  fmt::format("(P, C) numbers, P at most {}", kMostVirtualTokens));
  }
  const auto bad = std::ranges::find_if(adapter.prompt, [](float v) { return !std::isfinite(v); });
  if (bad == adapter.prompt.end()) return {};
  return broken("the soft prompt holds what is no number",
                fmt::format("{} at {}", *bad, bad - adapter.prompt.begin()), "finite numbers");
}

std::span<const std::byte> bytes_of(const std::vector<float>& values) {
  return std::as_bytes(std::span(values));
}

}  // namespace

std::string_view adapter_kind_name(AdapterKind kind) {
  switch (kind) {
    case AdapterKind::kLora: return "lora";
    case AdapterKind::kPooled: return "pooled";
    case AdapterKind::kDora: return "dora";
    case AdapterKind::kPrompt: return "prompt";
  }
  return "unknown";
}

std::int64_t Adapter::parameters() const {
  auto sum = static_cast<std::int64_t>(prompt.size());
  for (const auto& [name, weight] : weights) {
    sum += static_cast<std::int64_t>(weight.a.size() + weight.b.size() + weight.magnitude.size());
  }
  return sum;
}

Status check_adapter(const Adapter& adapter) {
  if (adapter.kind == AdapterKind::kPrompt) return check_prompt(adapter);
  if (adapter.weights.empty()) return broken("the adapter changes nothing", "no tensors", "");
  if (!std::isfinite(adapter.alpha)) {
    return broken("the adapter's alpha is no number", fmt::format("{}", adapter.alpha), "");
  }
  for (const auto& [name, weight] : adapter.weights) {
    const bool whole = weight.rank > 0 && weight.inputs > 0 && weight.outputs > 0 &&
                       weight.a.size() == static_cast<std::size_t>(weight.rank * weight.inputs) &&
                       weight.b.size() == static_cast<std::size_t>(weight.outputs * weight.rank);
    if (!whole) {
      return broken(
          fmt::format("the adapter's two matrices for '{}' do not fit together", printable(name)),
          fmt::format("rank {}, {} and {} numbers", weight.rank, weight.a.size(), weight.b.size()),
          "A (r, K) and B (R, r)");
    }
    const std::size_t magnitudes =
        adapter.kind == AdapterKind::kDora ? static_cast<std::size_t>(weight.outputs) : 0;
    if (weight.magnitude.size() != magnitudes) {
      return broken(fmt::format("the adapter's magnitudes for '{}' do not fit", printable(name)),
                    fmt::format("{} numbers", weight.magnitude.size()),
                    fmt::format("{}, one an output of DoRA", magnitudes));
    }
    for (const auto* values : {&weight.a, &weight.b, &weight.magnitude}) {
      const auto bad = std::ranges::find_if(*values, [](float v) { return !std::isfinite(v); });
      if (bad == values->end()) continue;
      return broken(fmt::format("the adapter for '{}' holds what is no number", printable(name)),
                    fmt::format("{} at {}", *bad, bad - values->begin()), "finite numbers");
    }
  }
  return {};
}

Result<Adapter> read_adapter_gguf(const std::string& path) {
  const auto file = GgufFile::open(path);
  if (!file) return file.error();
  return adapter_of_gguf(*file, path);
}

Result<Adapter> adapter_of_gguf(const GgufFile& file, const std::string& path) {
  Adapter adapter;
  const Metadata& metadata = file.metadata();
  const Status kind = check_kind(metadata, adapter);
  if (!kind) return kind.error().in(path);
  const auto architecture = metadata.text_or("general.architecture", "");
  if (!architecture) return architecture.error();
  adapter.architecture = *architecture;
  const auto base = metadata.text_or("general.base_model.0.name", "");
  if (base) adapter.base = *base;
  const auto alpha = metadata.number_or("adapter.lora.alpha", 0);
  if (!alpha) return alpha.error();
  adapter.alpha = *alpha;
  if (adapter.kind == AdapterKind::kPrompt) {
    Status status = read_prompt(file, adapter);
    if (status.ok()) status = check_adapter(adapter);
    if (!status) return status.error().in(path);
    return adapter;
  }
  for (const TensorRecord& tensor : file.tensors()) {
    const auto part = part_of(tensor);
    if (!part) return part.error().in(path);
    auto values = quant::dequantize(tensor.dtype, tensor.data);
    if (!values) return values.error().in(path + ", " + printable(tensor.name));
    AdapterWeight& weight = adapter.weights[part->weight];
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
  return adapter;
}

Status write_adapter_gguf(const std::string& path, const Adapter& adapter) {
  HONE_RETURN_IF_ERROR(check_adapter(adapter));
  const bool pooled = adapter.kind == AdapterKind::kPooled;
  Metadata metadata(path);
  metadata.set("general.architecture", adapter.architecture);
  metadata.set("general.type", std::string("adapter"));
  metadata.set("general.file_type", std::uint32_t{0});  // f32
  metadata.set("general.quantization_version", std::uint32_t{2});
  if (!adapter.base.empty()) {
    metadata.set("general.base_model.count", std::uint32_t{1});
    metadata.set("general.base_model.0.name", adapter.base);
  }
  metadata.set("adapter.type", std::string(adapter_kind_name(adapter.kind)));
  const bool prompt = adapter.kind == AdapterKind::kPrompt;
  if (!prompt) metadata.set("adapter.lora.alpha", static_cast<float>(adapter.alpha));
  if (pooled) metadata.set("adapter.pooled.columns", static_cast<std::uint32_t>(kPoolColumns));
  std::vector<GgufTensorToWrite> tensors;
  if (prompt) {
    tensors.push_back({std::string(kPromptName),
                       DType::kF32,
                       {adapter.virtual_tokens, adapter.hidden},
                       bytes_of(adapter.prompt),
                       nullptr});
  }
  for (const auto& [name, weight] : adapter.weights) {
    tensors.push_back({name + std::string(kSuffixA),
                       DType::kF32,
                       {weight.rank, weight.inputs},
                       bytes_of(weight.a),
                       nullptr});
    tensors.push_back({name + std::string(kSuffixB),
                       DType::kF32,
                       {weight.outputs, weight.rank},
                       bytes_of(weight.b),
                       nullptr});
    if (weight.magnitude.empty()) continue;
    tensors.push_back({name + std::string(kSuffixMagnitude),
                       DType::kF32,
                       {weight.outputs},
                       bytes_of(weight.magnitude),
                       nullptr});
  }
  return write_gguf(path, metadata, tensors);
}

}  // namespace hone::formats

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
  const bool pooled = *kind == adapter_kind_name(AdapterKind::kPooled);
  const bool dora = *kind == adapter_kind_name(AdapterKind::kDora);
  if (!pooled && !dora && *kind != adapter_kind_name(AdapterKind::kLora)) {
    return Error{ErrorCode::kUnsupported, "this kind of adapter is not known",
                 "adapter.type",          printable(*kind),
                 "lora, pooled or dora",  ""};
  }
  adapter.kind = pooled ? AdapterKind::kPooled : dora ? AdapterKind::kDora : AdapterKind::kLora;
  if (pooled) {
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

std::span<const std::byte> bytes_of(const std::vector<float>& values) {
  return std::as_bytes(std::span(values));
}

}  // namespace

std::string_view adapter_kind_name(AdapterKind kind) {
  return kind == AdapterKind::kPooled ? "pooled" : kind == AdapterKind::kDora ? "dora" : "lora";
}

std::int64_t Adapter::parameters() const {
  std::int64_t sum = 0;
  for (const auto& [name, weight] : weights) {
    sum += static_cast<std::int64_t>(weight.a.size() + weight.b.size() + weight.magnitude.size());
  }
  return sum;
}

Status check_adapter(const Adapter& adapter) {
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
  metadata.set("adapter.lora.alpha", static_cast<float>(adapter.alpha));
  if (pooled) metadata.set("adapter.pooled.columns", static_cast<std::uint32_t>(kPoolColumns));
  std::vector<GgufTensorToWrite> tensors;
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

// SPDX-License-Identifier: Apache-2.0
#include "engine/adapter.h"

#include <fmt/format.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <optional>

#include "engine/tensor_change.h"
#include "formats/adapter_peft.h"
#include "quant/codec.h"

namespace hone::engine {
namespace {

namespace fs = std::filesystem;
using formats::Adapter;
using formats::AdapterKind;
using formats::AdapterWeight;
using models::Change;

Result<const models::Family*> family_of(const ModelSource& model) {
  const auto architecture = model.metadata().text("general.architecture");
  if (!architecture) return architecture.error();
  if (const models::Family* family = models::find_family(*architecture)) return family;
  return Error{ErrorCode::kUnsupported,
               "hone does not know this kind of model",
               model.path() + ", general.architecture",
               fmt::format("'{}'", *architecture),
               "",
               ""};
}

Result<HeadCounts> heads_of(const ModelSource& model, const models::Family& family) {
  const std::string architecture(family.architecture);
  const auto query = model.metadata().integer(architecture + ".attention.head_count");
  if (!query) return query.error();
  const auto key = model.metadata().integer_or(architecture + ".attention.head_count_kv", *query);
  if (!key) return key.error();
  return HeadCounts{*query, *key};
}

// B's rows are the weight's rows, so what permutes the weight permutes them. A transposed weight
// (GPT-2's) changes neither: PEFT keeps A (r, inputs) and B (outputs, r) for it too.
Status change_rows(AdapterWeight& weight, Change change, const HeadCounts& heads,
                   bool to_gguf_rows) {
  if (change != Change::kRopeQuery && change != Change::kRopeKey) return {};
  const auto permute = [&](std::vector<float>& values, std::int64_t columns) -> Status {
    const std::int64_t shape[] = {weight.outputs, columns};
    const auto bytes = std::as_bytes(std::span(values));
    auto changed = to_gguf_rows ? to_gguf(change, DType::kF32, shape, bytes, heads)
                                : to_hugging_face(change, DType::kF32, shape, bytes, heads);
    if (!changed) return changed.error();
    std::memcpy(values.data(), changed->data.data(), changed->data.size());
    return {};
  };
  HONE_RETURN_IF_ERROR(permute(weight.b, weight.rank));
  return weight.magnitude.empty() ? Status{} : permute(weight.magnitude, 1);
}

// Some adapters leave out the outermost module of the model.
std::optional<NamedTensor> gguf_of(const models::Family& family, const std::string& name) {
  if (auto found = gguf_name(family, name)) return found;
  for (const char* module : {"model.", "transformer."}) {
    if (auto found = gguf_name(family, module + name)) return found;
  }
  return std::nullopt;
}

Result<Adapter> from_peft(const std::string& folder, const ModelSource& model) {
  auto peft = formats::read_adapter_peft(folder);
  if (!peft) return peft.error();
  const auto family = family_of(model);
  if (!family) return family.error();
  const auto heads = heads_of(model, **family);
  if (!heads) return heads.error();
  Adapter adapter;
  adapter.kind = peft->kind;
  adapter.architecture = (*family)->architecture;
  adapter.base = peft->base;
  adapter.alpha = peft->alpha;
  adapter.virtual_tokens = peft->virtual_tokens;
  adapter.hidden = peft->hidden;
  adapter.prompt = std::move(peft->prompt);
  for (auto& [name, weight] : peft->weights) {
    const auto named = gguf_of(**family, name);
    if (!named) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("the model has no weight '{}'", formats::printable(name)),
                   folder,
                   "",
                   fmt::format("modules of {}", (*family)->hugging_face_class),
                   "is the adapter for this model?"};
    }
    const Status changed = change_rows(weight, named->change, *heads, true);
    if (!changed) return changed.error().in(folder + ", " + formats::printable(name));
    adapter.weights.emplace(named->name, std::move(weight));
  }
  return adapter;
}

// A soft prompt is as wide as the embedding.
Status fits_prompt(const Adapter& adapter, const ModelSource& model) {
  const formats::TensorRecord* embedding = model.find("token_embd.weight");
  const std::int64_t columns =
      embedding != nullptr && embedding->shape.size() == 2 ? embedding->shape[1] : 0;
  if (adapter.hidden == columns) return {};
  return Error{ErrorCode::kInvalidArgument,
               "the soft prompt does not fit the model",
               "",
               fmt::format("{} numbers a virtual token", adapter.hidden),
               fmt::format("{}", columns),
               "is it for this model?"};
}

std::string matrix_text(std::int64_t rows, std::int64_t columns) {
  return fmt::format("({}, {})", rows, columns);
}

Status fits_weight(const std::string& name, const AdapterWeight& weight, AdapterKind kind,
                   const ModelSource& model) {
  const formats::TensorRecord* tensor = model.find(name);
  if (tensor == nullptr) {
    const bool tied = name == "output.weight";
    return Error{tied ? ErrorCode::kUnsupported : ErrorCode::kNotFound,
                 tied ? "the adapter changes the output, which this model ties to its embedding"
                      : fmt::format("the model has no weight '{}'", formats::printable(name)),
                 model.path(),
                 "",
                 "an adapter of the model's linear layers",
                 tied ? "leave the output out of the adapter" : "is the adapter for this model?"};
  }
  if (name == "token_embd.weight" || name == "position_embd.weight") {
    return Error{ErrorCode::kUnsupported,
                 "the adapter changes the embedding",
                 "",
                 name,
                 "an adapter of the model's linear layers",
                 "leave the embedding out of the adapter"};
  }
  const std::int64_t pool = kind == AdapterKind::kPooled ? formats::kPoolColumns : 1;
  const bool fits = tensor->shape.size() == 2 && weight.outputs == tensor->shape[0] &&
                    tensor->shape[1] % pool == 0 && weight.inputs == tensor->shape[1] / pool;
  if (fits && quant::find_codec(tensor->dtype) == nullptr) {
    return Error{ErrorCode::kUnsupported,
                 fmt::format("weights of '{}' cannot be decoded", name),
                 model.path(),
                 std::string(dtype_name(tensor->dtype)),
                 "",
                 ""};
  }
  if (fits) return {};
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("the adapter does not fit the model's weight '{}'", name),
               "",
               fmt::format("A {} and B {}", matrix_text(weight.rank, weight.inputs),
                           matrix_text(weight.outputs, weight.rank)),
               fmt::format("a weight {}", formats::shape_text(tensor->shape)),
               "is the adapter for this model?"};
}

}  // namespace

Status fits_model(const Adapter& adapter, const ModelSource& model) {
  const auto architecture = model.metadata().text("general.architecture");
  if (!architecture) return architecture.error();
  if (!adapter.architecture.empty() && adapter.architecture != *architecture) {
    return Error{ErrorCode::kInvalidArgument,
                 "the adapter is for another kind of model",
                 "general.architecture",
                 formats::printable(adapter.architecture),
                 *architecture,
                 "give the model that it was trained on"};
  }
  if (adapter.kind == AdapterKind::kPrompt) return fits_prompt(adapter, model);
  for (const auto& [name, weight] : adapter.weights) {
    HONE_RETURN_IF_ERROR(fits_weight(name, weight, adapter.kind, model));
  }
  return {};
}

Result<Adapter> read_adapter(const std::string& path, const ModelSource& model) {
  std::error_code code;
  auto adapter =
      fs::is_directory(path, code) ? from_peft(path, model) : formats::read_adapter_gguf(path);
  if (!adapter) return adapter.error();
  const Status fits = fits_model(*adapter, model);
  if (!fits) return fits.error().in(path);
  return adapter;
}

Status write_adapter(const std::string& path, const Adapter& adapter, const ModelSource& model) {
  HONE_RETURN_IF_ERROR(fits_model(adapter, model));
  const auto family = family_of(model);
  if (!family) return family.error();
  if (path.ends_with(".gguf")) {
    Adapter named = adapter;
    named.architecture = (*family)->architecture;
    return formats::write_adapter_gguf(path, named);
  }
  const auto heads = heads_of(model, **family);
  if (!heads) return heads.error();
  Adapter peft = adapter;
  peft.weights.clear();
  bool transposed = false;
  for (const auto& [name, weight] : adapter.weights) {
    const auto named = hugging_face_name(**family, name);
    if (!named) {
      return Error{ErrorCode::kUnsupported,
                   fmt::format("Hugging Face has no name for '{}'", formats::printable(name)),
                   path,
                   "",
                   fmt::format("weights of {}", (*family)->hugging_face_class),
                   ""};
    }
    AdapterWeight changed = weight;
    HONE_RETURN_IF_ERROR(change_rows(changed, named->change, *heads, false));
    transposed = transposed || named->change == Change::kTranspose;
    peft.weights.emplace(named->name, std::move(changed));
  }
  const auto layers =
      model.metadata().integer(fmt::format("{}.block_count", (*family)->architecture));
  if (!layers) return layers.error();
  return formats::write_adapter_peft(
      path, peft, {.fan_in_fan_out = transposed, .layers = *layers, .heads = heads->query});
}

passes::LoraOptions lora_options(const Adapter& adapter) {
  passes::LoraOptions options;
  options.form = adapter.kind == AdapterKind::kPooled ? passes::AdapterForm::kPooled
                 : adapter.kind == AdapterKind::kDora ? passes::AdapterForm::kDora
                                                      : passes::AdapterForm::kLora;
  options.fixed_gain = true;
  for (const auto& [name, weight] : adapter.weights) options.ranks.emplace(name, weight.rank);
  return options;
}

std::vector<float> dora_gain(const std::string& name, const Adapter& adapter,
                             const ModelSource& model, double strength) {
  const AdapterWeight& weight = adapter.weights.at(name);
  const formats::TensorRecord& tensor = *model.find(name);
  const quant::Codec& codec = *quant::find_codec(tensor.dtype);
  const auto scale = static_cast<float>(adapter.scale(weight.rank) * strength);
  const auto columns = static_cast<std::size_t>(weight.inputs);
  const auto rank = static_cast<std::size_t>(weight.rank);
  const auto row_bytes = static_cast<std::size_t>(dtype_bytes(tensor.dtype, weight.inputs));
  std::vector<float> row(columns), gain;
  for (std::size_t r = 0; r < static_cast<std::size_t>(weight.outputs); ++r) {
    codec.decode(tensor.data.subspan(r * row_bytes, row_bytes), row);
    for (std::size_t i = 0; i < rank; ++i) {
      const float factor = scale * weight.b[r * rank + i];
      for (std::size_t k = 0; k < columns; ++k) row[k] += factor * weight.a[i * columns + k];
    }
    double squares = 0;
    for (const float value : row) squares += double{value} * double{value};
    const double norm = std::sqrt(squares);
    const double whole = norm > 0 ? double{weight.magnitude[r]} / norm : 0;
    gain.push_back(static_cast<float>(strength == 1 ? whole : 1 + strength * (whole - 1)));
  }
  return gain;
}

std::string hugging_face_weight(const ModelSource& model, std::string_view gguf) {
  const auto family = family_of(model);
  if (!family) return "";
  const auto named = hugging_face_name(**family, gguf);
  return named ? named->name : "";
}

}  // namespace hone::engine

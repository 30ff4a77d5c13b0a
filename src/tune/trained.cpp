// SPDX-License-Identifier: Apache-2.0
#include "tune/trained.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "base/random.h"
#include "engine/adapter.h"
#include "engine/rewrite.h"
#include "formats/gguf.h"
#include "formats/tokenizer.h"
#include "passes/transform/lora.h"
#include "passes/transform/scales.h"
#include "passes/transform/soft_prompt.h"
#include "quant/codec.h"
#include "quant/scales.h"

namespace hone::tune {
namespace {

Result<std::span<float>> add(engine::Session& session, const std::string& name,
                             const ir::Shape& shape, const std::vector<float>& values) {
  const auto added =
      session.weights().add_owned(name, ir::tensor_type(shape), std::as_bytes(std::span(values)));
  if (!added) return added.error();
  return std::span<float>(reinterpret_cast<float*>(added->data()), values.size());
}

Status add_tensor(Trained& trained, engine::Session& session, const std::string& name,
                  const ir::Shape& shape, const std::vector<float>& values) {
  const auto memory = add(session, name, shape, values);
  if (!memory) return memory.error();
  trained.tensors.push_back({name, shape, *memory});
  return {};
}

Result<std::vector<float>> decoded(const engine::Session& session, const std::string& name);

// DoRA begins at the model itself: its magnitudes are the norms of the weight's rows.
Result<std::vector<float>> row_norms(const engine::Session& session, const std::string& name) {
  const auto values = decoded(session, name);
  if (!values) return values.error();
  const auto columns = static_cast<std::size_t>(session.source().find(name)->shape[1]);
  std::vector<float> norms;
  for (std::size_t start = 0; start < values->size(); start += columns) {
    double squares = 0;
    for (std::size_t i = 0; i < columns; ++i) {
      squares += double{(*values)[start + i]} * double{(*values)[start + i]};
    }
    norms.push_back(static_cast<float>(std::sqrt(squares)));
  }
  return norms;
}

Status prepare_adapter(Trained& trained, engine::Session& session) {
  const MethodOptions& options = trained.options;
  const bool pooled = options.method == "pooled";
  const bool dora = options.method == "dora";
  if (options.rank < 1 || options.rank > 1024) {
    return Error{ErrorCode::kInvalidArgument,
                 "an adapter cannot have this rank",
                 "--rank",
                 fmt::format("{}", options.rank),
                 "1 to 1024",
                 ""};
  }
  auto weights = engine::select_modules(session.source(), options.modules);
  if (!weights) return weights.error();
  if (options.layers > 0) {
    const std::int64_t first = session.config().layers - options.layers;
    std::erase_if(*weights,
                  [first](const std::string& name) { return engine::layer_of(name) < first; });
  }
  trained.weights = *weights;
  passes::LoraOptions lora;
  lora.form = pooled ? passes::AdapterForm::kPooled
              : dora ? passes::AdapterForm::kDora
                     : passes::AdapterForm::kLora;
  trained.tensors_each = dora ? 3 : 2;
  if (!(options.dropout >= 0 && options.dropout < 1)) {
    return Error{ErrorCode::kInvalidArgument,        "this is no chance of dropping", "--dropout",
                 fmt::format("{}", options.dropout), "at least 0, below 1",           ""};
  }
  lora.scale = options.alpha / static_cast<double>(options.rank);
  lora.writable = true;
  for (std::size_t i = 0; i < weights->size(); ++i) {
    const std::string& name = (*weights)[i];
    const ir::Type* type = session.weights().find(name);
    if (type == nullptr) continue;
    const std::int64_t inputs = pooled ? type->columns() / formats::kPoolColumns : type->columns();
    std::vector<float> a(static_cast<std::size_t>(options.rank * inputs));
    Random random(options.seed, i);
    const float bound = 1.0F / std::sqrt(static_cast<float>(inputs));
    for (float& value : a) value = (2 * random.uniform() - 1) * bound;
    const std::vector<float> b(static_cast<std::size_t>(type->rows() * options.rank), 0.0F);
    HONE_RETURN_IF_ERROR(
        add_tensor(trained, session, passes::lora_a_name(name), {options.rank, inputs}, a));
    trained.tensors.back().fixed = options.fixed_a;
    HONE_RETURN_IF_ERROR(
        add_tensor(trained, session, passes::lora_b_name(name), {type->rows(), options.rank}, b));
    if (dora) {
      const auto magnitudes = row_norms(session, name);
      if (!magnitudes) return magnitudes.error();
      HONE_RETURN_IF_ERROR(add_tensor(trained, session, passes::lora_magnitude_name(name),
                                      {type->rows()}, *magnitudes));
    }
    lora.ranks[name] = options.rank;
  }
  trained.adapt_exactly = [lora](const ir::Graph& graph) { return passes::add_lora(graph, lora); };
  lora.dropout = options.dropout;
  trained.adapt = [lora](const ir::Graph& graph) { return passes::add_lora(graph, lora); };
  return {};
}

Result<std::vector<float>> decoded(const engine::Session& session, const std::string& name) {
  const formats::TensorRecord* tensor = session.source().find(name);
  const quant::Codec* codec = tensor != nullptr ? quant::find_codec(tensor->dtype) : nullptr;
  if (codec == nullptr) {
    return Error{ErrorCode::kUnsupported,
                 fmt::format("the tensor '{}' cannot be trained", name),
                 session.source().path(),
                 tensor == nullptr ? "no such tensor" : std::string(dtype_name(tensor->dtype)),
                 "weights of a type that can be decoded",
                 ""};
  }
  const ir::Type type = ir::tensor_type(tensor->shape, tensor->dtype);
  std::vector<float> values(static_cast<std::size_t>(type.elements()));
  codec->decode(tensor->data, values);
  return values;
}

// Tokens whose embedding a soft prompt begins as. Lester et al. 2021, section 3.2: of the
// vocabulary's most common, 5,000 there; vocabularies are about in this order.
Result<std::vector<formats::TokenId>> first_tokens(const engine::Session& session,
                                                   const MethodOptions& options) {
  std::vector<formats::TokenId> tokens;
  if (!options.prompt_text.empty()) {
    auto vocabulary = session.source().vocabulary();
    if (!vocabulary) return vocabulary.error();
    const auto tokenizer = formats::Tokenizer::create(*std::move(vocabulary));
    if (!tokenizer) return tokenizer.error();
    tokens = tokenizer->encode(options.prompt_text);
    for (std::size_t i = 0; !tokens.empty() && std::ssize(tokens) < options.virtual_tokens; ++i) {
      tokens.push_back(tokens[i]);
    }
    tokens.resize(static_cast<std::size_t>(options.virtual_tokens));
    return tokens;
  }
  Random random(options.seed);
  const auto common =
      static_cast<std::uint32_t>(std::min<std::int64_t>(session.config().vocabulary, 5000));
  for (std::int64_t i = 0; i < options.virtual_tokens; ++i) {
    tokens.push_back(static_cast<formats::TokenId>(random.below(common)));
  }
  return tokens;
}

Status prepare_prompt(Trained& trained, engine::Session& session) {
  const MethodOptions& options = trained.options;
  const std::int64_t most = std::min(formats::kMostVirtualTokens, session.config().context - 2);
  if (options.virtual_tokens < 1 || options.virtual_tokens > most) {
    return Error{ErrorCode::kInvalidArgument,  "a soft prompt cannot have so many tokens",
                 "--virtual-tokens",           fmt::format("{}", options.virtual_tokens),
                 fmt::format("1 to {}", most), ""};
  }
  const auto tokens = first_tokens(session, options);
  if (!tokens) return tokens.error();
  const auto graph = session.build_graph(models::Batch{1, 1, 1, 1});
  if (!graph) return graph.error();
  const auto factor = passes::embedding_factor(*graph);
  if (!factor) return factor.error();
  const formats::TensorRecord* table = session.source().find("token_embd.weight");
  const quant::Codec* codec = table != nullptr ? quant::find_codec(table->dtype) : nullptr;
  if (codec == nullptr) return decoded(session, "token_embd.weight").error();
  const std::int64_t columns = table->shape[1];
  const auto row_bytes = static_cast<std::size_t>(dtype_bytes(table->dtype, columns));
  std::vector<float> values(static_cast<std::size_t>(options.virtual_tokens * columns));
  for (std::size_t i = 0; i < tokens->size(); ++i) {
    const auto row = static_cast<std::size_t>((*tokens)[i]);
    codec->decode(table->data.subspan(row * row_bytes, row_bytes),
                  std::span(values).subspan(i * static_cast<std::size_t>(columns),
                                            static_cast<std::size_t>(columns)));
  }
  for (float& value : values) value *= static_cast<float>(*factor);
  trained.virtual_tokens = options.virtual_tokens;
  trained.tensors_each = 1;
  passes::SoftPromptOptions prompt;
  prompt.virtual_tokens = options.virtual_tokens;
  prompt.writable = true;
  trained.adapt = [prompt](const ir::Graph& graph) {
    return passes::add_soft_prompt(graph, prompt);
  };
  trained.adapt_exactly = trained.adapt;
  return add_tensor(trained, session, std::string(passes::kSoftPromptName),
                    {options.virtual_tokens, columns}, values);
}

// Copies of the model's own weights in f32, in front of the file's.
Status prepare_weights(Trained& trained, engine::Session& session) {
  const bool head = trained.options.method == "head";
  models::Batch batch;
  auto graph = session.build_graph(batch);
  if (!graph) return graph.error();
  std::set<std::string> names;
  for (const ir::Operation& operation : graph->operations) {
    if (operation.is("parameter")) names.emplace(operation.attributes.text("name"));
  }
  const std::string output =
      names.contains("output.weight") ? "output.weight" : "token_embd.weight";
  for (const std::string& name : names) {
    if (head && name != output) continue;
    const bool turns_tokens = name == output || name == "token_embd.weight";
    if (trained.options.tokens_stay && turns_tokens) continue;
    const auto values = decoded(session, name);
    if (!values) return values.error();
    // A head that is trained alone must not change the embedding that it was tied to.
    const std::string as = head ? "output.weight" : name;
    const ir::Shape shape = session.source().find(name)->shape;
    HONE_RETURN_IF_ERROR(add_tensor(trained, session, as, shape, *values));
  }
  trained.trains_output = !trained.options.tokens_stay;
  return {};
}

Result<passes::ScaleView> view_named(std::string_view name) {
  if (name == "tied") return passes::ScaleView::kTied;
  if (name == "scale") return passes::ScaleView::kScale;
  if (name == "minimum") return passes::ScaleView::kMinimum;
  return Error{ErrorCode::kInvalidArgument, "a scale has no such view", "--view",
               std::string(name),           "tied, scale or minimum",   ""};
}

// A view of one part needs blocks of 32 that have both.
bool fits_view(passes::ScaleView view, DType dtype) {
  return view == passes::ScaleView::kTied || dtype == DType::kQ4_1 || dtype == DType::kQ5_1;
}

Status prepare_scales(Trained& trained, engine::Session& session) {
  const auto view = view_named(trained.options.view);
  if (!view) return view.error();
  const auto weights = engine::select_modules(session.source(), trained.options.modules);
  if (!weights) return weights.error();
  passes::ScaleOptions scales;
  scales.view = *view;
  scales.writable = true;
  for (const std::string& name : *weights) {
    const formats::TensorRecord* tensor = session.source().find(name);
    if (tensor == nullptr || !quant::scale_places(tensor->dtype)) continue;
    if (!fits_view(*view, tensor->dtype)) {
      return Error{
          ErrorCode::kUnsupported, fmt::format("'{}' has no minimum to tell from its scale", name),
          session.source().path(), std::string(dtype_name(tensor->dtype)),
          "q4_1 or q5_1",          "--view tied"};
    }
    const ir::Shape shape = {tensor->shape[0], tensor->shape[1] / dtype_info(tensor->dtype).block};
    std::vector<float> values(static_cast<std::size_t>(shape[0] * shape[1]), 0.0F);
    HONE_RETURN_IF_ERROR(add_tensor(trained, session, passes::scales_name(name), shape, values));
    if (*view != passes::ScaleView::kTied) {
      quant::read_minimums(tensor->dtype, tensor->data, values);
      const auto added = add(session, passes::minimums_name(name), shape, values);
      if (!added) return added.error();
    }
    scales.weights.push_back(name);
  }
  trained.weights = scales.weights;
  trained.tensors_each = 1;
  trained.adapt = [scales](const ir::Graph& graph) { return passes::add_scales(graph, scales); };
  trained.adapt_exactly = trained.adapt;
  return {};
}

}  // namespace

bool trains_adapter(std::string_view method) {
  return method == "lora" || method == "pooled" || method == "dora" || method == "prompt";
}

std::int64_t Trained::parameters() const {
  std::int64_t count = 0;
  for (const TrainedTensor& tensor : tensors) {
    count += static_cast<std::int64_t>(tensor.values.size());
  }
  return count;
}

void Trained::write_back(const formats::Adapter& adapter) {
  if (adapter.kind == formats::AdapterKind::kPrompt) {
    std::ranges::copy(adapter.prompt, tensors[0].values.begin());
    return;
  }
  for (std::size_t i = 0; i + 1 < tensors.size(); i += tensors_each) {
    const auto found = adapter.weights.find(weights[i / tensors_each]);
    if (found == adapter.weights.end()) continue;
    std::ranges::copy(found->second.a, tensors[i].values.begin());
    std::ranges::copy(found->second.b, tensors[i + 1].values.begin());
  }
}

Result<Trained> prepare(engine::Session& session, const MethodOptions& options) {
  Trained trained;
  trained.options = options;
  Status status;
  if (options.method == "prompt") {
    status = prepare_prompt(trained, session);
  } else if (trains_adapter(options.method)) {
    status = prepare_adapter(trained, session);
  } else if (options.method == "full" || options.method == "head") {
    status = prepare_weights(trained, session);
  } else if (options.method == "scale") {
    status = prepare_scales(trained, session);
  } else {
    return Error{ErrorCode::kInvalidArgument,
                 "there is no such way to tune",
                 "--method",
                 options.method,
                 "lora, pooled, dora, full, head, prompt or scale",
                 ""};
  }
  if (!status.ok()) return status.error();
  if (trained.parameters() == 0) {
    return Error{ErrorCode::kInvalidArgument,
                 "nothing would be trained",
                 "--modules",
                 options.modules,
                 "modules that the model has (of scale, block-quantized ones)",
                 "see `hone inspect --tensors`"};
  }
  return trained;
}

formats::Adapter adapter_of(const Trained& trained, const engine::Session& session) {
  formats::Adapter adapter;
  if (trained.options.method == "prompt") {
    const TrainedTensor& prompt = trained.tensors[0];
    adapter.kind = formats::AdapterKind::kPrompt;
    adapter.architecture = session.config().architecture;
    adapter.virtual_tokens = prompt.shape[0];
    adapter.hidden = prompt.shape[1];
    adapter.prompt.assign(prompt.values.begin(), prompt.values.end());
    return adapter;
  }
  adapter.kind = trained.options.method == "pooled" ? formats::AdapterKind::kPooled
                 : trained.options.method == "dora" ? formats::AdapterKind::kDora
                                                    : formats::AdapterKind::kLora;
  adapter.architecture = session.config().architecture;
  adapter.alpha = trained.options.alpha;
  const std::size_t each = trained.tensors_each;
  for (std::size_t i = 0; i + 1 < trained.tensors.size(); i += each) {
    const TrainedTensor& a = trained.tensors[i];
    const TrainedTensor& b = trained.tensors[i + 1];
    formats::AdapterWeight weight;
    weight.rank = a.shape[0];
    weight.inputs = a.shape[1];
    weight.outputs = b.shape[0];
    weight.a.assign(a.values.begin(), a.values.end());
    weight.b.assign(b.values.begin(), b.values.end());
    if (each == 3) {
      const std::span<const float> m = trained.tensors[i + 2].values;
      weight.magnitude.assign(m.begin(), m.end());
    }
    adapter.weights.emplace(trained.weights[i / each], std::move(weight));
  }
  return adapter;
}

Status write_model(const Trained& trained, const engine::Session& session,
                   const std::string& path) {
  auto metadata = engine::gguf_metadata(session.source());
  if (!metadata) return metadata.error();
  std::vector<formats::GgufTensorToWrite> out;
  const auto own = [&](std::string_view name) {
    return std::ranges::find(trained.tensors, name, &TrainedTensor::name);
  };
  const auto add_own = [&](const TrainedTensor& tensor) {
    out.push_back({tensor.name, DType::kF32, tensor.shape, std::as_bytes(tensor.values), nullptr});
  };
  const bool scales = trained.options.method == "scale";
  for (const formats::TensorRecord& tensor : session.source().tensors()) {
    const auto found = own(tensor.name);
    const auto scaled = std::ranges::find(trained.weights, tensor.name);
    if (scales && scaled != trained.weights.end()) {
      const auto index = static_cast<std::size_t>(scaled - trained.weights.begin());
      out.push_back({tensor.name,
                     tensor.dtype,
                     tensor.shape,
                     {},
                     [&trained, &session, &tensor, index](const Append& append) {
                       const Status status = append(scaled_bytes(trained, session, index));
                       session.source().release(tensor, 0, tensor.data.size());
                       return status;
                     }});
    } else if (found != trained.tensors.end()) {
      add_own(*found);
    } else {
      out.push_back(
          {tensor.name, tensor.dtype, tensor.shape, {}, [&session, &tensor](const Append& append) {
             return session.source().each_part(tensor, append);
           }});
    }
  }
  // A head of its own, where the model had it tied to the embedding.
  for (const TrainedTensor& tensor : trained.tensors) {
    if (!scales && session.source().find(tensor.name) == nullptr) add_own(tensor);
  }
  return formats::write_gguf(path, *metadata, out);
}

std::vector<std::byte> scaled_bytes(const Trained& trained, const engine::Session& session,
                                    std::size_t index) {
  const formats::TensorRecord& tensor = *session.source().find(trained.weights[index]);
  const quant::ScalePart part = trained.options.view == "scale"     ? quant::ScalePart::kScale
                                : trained.options.view == "minimum" ? quant::ScalePart::kMinimum
                                                                    : quant::ScalePart::kBoth;
  std::vector<std::byte> out(tensor.data.size());
  quant::multiply_scales(tensor.dtype, part, tensor.data, trained.tensors[index].values, out);
  return out;
}

Status show_scales(const Trained& trained, engine::Session& session, bool on) {
  for (std::size_t i = 0; i < trained.weights.size(); ++i) {
    const std::string& name = trained.weights[i];
    const auto bytes = on ? scaled_bytes(trained, session, i) : std::vector<std::byte>();
    HONE_RETURN_IF_ERROR(session.weights().patch(
        name, on ? std::span<const std::byte>(bytes) : session.source().find(name)->data));
  }
  return {};
}

}  // namespace hone::tune

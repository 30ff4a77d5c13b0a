// SPDX-License-Identifier: Apache-2.0
#include "models/parts.h"

#include <fmt/format.h>

#include <cmath>

#include "ops/registry.h"

namespace hone::models {
namespace {

std::string shape_text(std::span<const std::int64_t> shape) {
  return fmt::format("({})", fmt::join(shape, ", "));
}

}  // namespace

ConfigReader::ConfigReader(const formats::Metadata& metadata) : metadata_(metadata) {
  architecture_ = keep(metadata.text("general.architecture"));
}

template <typename T>
T ConfigReader::keep(Result<T> result) {
  if (result) return *std::move(result);
  if (status_.ok()) status_ = result.error();
  return T{};
}

std::int64_t ConfigReader::integer(std::string_view key) {
  return keep(metadata_.integer(full(key)));
}
std::int64_t ConfigReader::integer_or(std::string_view key, std::int64_t otherwise) {
  return keep(metadata_.integer_or(full(key), otherwise));
}
double ConfigReader::number(std::string_view key) { return keep(metadata_.number(full(key))); }
double ConfigReader::number_or(std::string_view key, double otherwise) {
  return keep(metadata_.number_or(full(key), otherwise));
}
std::string ConfigReader::text_or(std::string_view key, std::string otherwise) {
  return keep(metadata_.text_or(full(key), std::move(otherwise)));
}

Result<Config> read_config(ConfigReader& reader, const FindWeight& weights,
                           std::string_view epsilon_key) {
  Config config;
  config.architecture = reader.architecture();
  config.hidden = reader.integer("embedding_length");
  config.layers = reader.integer("block_count");
  config.heads = reader.integer("attention.head_count");
  config.kv_heads = reader.integer_or("attention.head_count_kv", config.heads);
  config.feed_forward = reader.integer("feed_forward_length");
  config.context = reader.integer("context_length");
  config.epsilon = reader.number(epsilon_key);
  config.rope_theta = reader.number_or("rope.freq_base", 10000);
  const std::int64_t each = config.heads > 0 ? config.hidden / config.heads : 0;
  config.head_size = reader.integer_or("attention.key_length", each);
  config.rope_dims = reader.integer_or("rope.dimension_count", config.head_size);
  const std::string scaling = reader.text_or("rope.scaling.type", "none");
  if (scaling == "linear") {
    config.rope_scale = 1.0 / reader.number_or("rope.scaling.factor", 1);
  } else if (scaling != "none" && scaling != "llama3") {  // llama3 comes as rope_freqs.weight
    return Error{ErrorCode::kUnsupported,
                 "this scaling of rotary positions is not known",
                 "metadata",
                 scaling,
                 "none, linear or llama3",
                 "the model would answer wrongly; pick another one"};
  }
  if (!reader.status().ok()) return reader.status().error();
  const ir::Type* embedding = weights("token_embd.weight");
  if (embedding == nullptr) {
    return Error{ErrorCode::kNotFound,           "the model has no embedding",     "", "",
                 "a tensor 'token_embd.weight'", "is this a vocabulary-only file?"};
  }
  config.vocabulary = embedding->rows();
  constexpr std::int64_t kLargest = 1 << 20;
  const bool sensible = config.hidden > 0 && config.layers > 0 && config.heads > 0 &&
                        config.kv_heads > 0 && config.heads % config.kv_heads == 0 &&
                        config.head_size > 0 && config.head_size % 8 == 0 &&
                        config.head_size <= 1024 && config.feed_forward > 0 && config.context > 0 &&
                        config.hidden < kLargest && config.layers < 4096 && config.heads < 4096 &&
                        config.feed_forward < kLargest && config.rope_dims <= config.head_size &&
                        config.rope_dims % 2 == 0 && config.rope_theta > 0;
  if (!sensible) {
    return Error{
        ErrorCode::kUnsupported,
        "the model's sizes make no sense together",
        "metadata",
        fmt::format("hidden {}, layers {}, heads {}, kv heads {}, head size {}, "
                    "feed forward {}, context {}, rope dimensions {}",
                    config.hidden, config.layers, config.heads, config.kv_heads, config.head_size,
                    config.feed_forward, config.context, config.rope_dims),
        "positive sizes, heads a multiple of kv heads, head size a multiple of 8",
        "check the file's metadata with `hone inspect`"};
  }
  return config;
}

std::string layer_prefix(std::int64_t layer) { return fmt::format("blk.{}.", layer); }

Parts::Parts(const Config& config, const Batch& batch, const FindWeight& weights)
    : config_(config),
      batch_(batch),
      weights_(weights),
      builder_(config.architecture, ops::find_op) {
  const auto input = [this](const char* name, ir::Shape shape) {
    return builder_.source("input", ir::tensor_type(std::move(shape), DType::kI32),
                           {{"name", std::string(name)}});
  };
  tokens = input("tokens", {batch.tokens});
  positions = input("positions", {batch.tokens});
  slots = input("slots", {batch.tokens});
  offsets = input("offsets", {batch.sequences + 1});
  pages = input("pages", {batch.sequences, batch.pages});
  rows = input("rows", {batch.rows});
}

ir::ValueId Parts::source(const std::string& name, ir::Shape shape, bool as_f32) {
  const ir::Type* found = weights_(name);
  if (found == nullptr || found->shape != shape) {
    if (status_.ok()) {
      status_ = Error{found == nullptr ? ErrorCode::kNotFound : ErrorCode::kCorrupt,
                      fmt::format("the model's tensor '{}' {}", name,
                                  found == nullptr ? "is missing" : "has the wrong shape"),
                      "",
                      found == nullptr ? "" : shape_text(found->shape),
                      shape_text(shape),
                      "see what the file holds with `hone inspect --tensors`"};
    }
  }
  const DType dtype = found != nullptr && !as_f32 ? found->dtype : DType::kF32;
  return builder_.source("parameter", ir::tensor_type(std::move(shape), dtype), {{"name", name}});
}

ir::ValueId Parts::matrix(const std::string& name, std::int64_t rows, std::int64_t columns) {
  return source(name, {rows, columns}, false);
}

ir::ValueId Parts::vector(const std::string& name, std::int64_t size) {
  return source(name, {size}, true);
}

ir::ValueId Parts::norm(ir::ValueId x, const std::string& name) {
  return emit("rms_norm", {x, vector(name, builder_.type(x).columns())},
              {{"epsilon", config_.epsilon}});
}

ir::ValueId Parts::head_norm(ir::ValueId x, const std::string& name, std::int64_t heads) {
  const ir::ValueId split =
      emit("reshape", {x}, {{"shape", ir::Integers{batch_.tokens * heads, config_.head_size}}});
  return emit("reshape", {norm(split, name)},
              {{"shape", ir::Integers{batch_.tokens, heads * config_.head_size}}});
}

ir::ValueId Parts::layer_norm(ir::ValueId x, const std::string& name) {
  const std::int64_t size = builder_.type(x).columns();
  return emit("layer_norm", {x, vector(name + ".weight", size), vector(name + ".bias", size)},
              {{"epsilon", config_.epsilon}});
}

ir::ValueId Parts::linear(ir::ValueId x, const std::string& name, std::int64_t rows_out) {
  const ir::ValueId product =
      emit("matmul", {x, matrix(name + ".weight", rows_out, builder_.type(x).columns())});
  return has(name + ".bias") ? add(product, vector(name + ".bias", rows_out)) : product;
}

ir::ValueId Parts::rope_table(double theta, double scale) {
  std::vector<ir::ValueId> operands = {positions};
  if (has("rope_freqs.weight"))
    operands.push_back(vector("rope_freqs.weight", config_.rope_dims / 2));
  return emit("rope_table", std::move(operands),
              {{"dims", config_.rope_dims}, {"theta", theta}, {"scale", scale}});
}

ir::ValueId Parts::attend(std::int64_t layer, ir::ValueId q, ir::ValueId k, ir::ValueId v,
                          ir::ValueId table, bool interleaved, std::int64_t window) {
  if (table != kNoTable) {
    ir::Attributes attributes{{"head_size", config_.head_size}};
    if (interleaved) attributes.set("interleaved", true);
    q = emit("rope", {q, table}, attributes);
    k = emit("rope", {k, table}, attributes);
  }
  const ir::Type state{DType::kF16, {config_.kv_heads, config_.head_size}, ir::Layout::kCache};
  const ir::ValueId cache = builder_.source("cache", state, {{"layer", layer}});
  const ir::ValueId written = emit("cache_write", {cache, k, v, slots});
  const double scale = config_.query_scale > 0
                           ? config_.query_scale
                           : 1.0 / std::sqrt(static_cast<double>(config_.head_size));
  ir::Attributes attributes{{"heads", config_.heads}, {"scale", scale}};
  if (window > 0) attributes.set("window", window);
  if (config_.attention_cap > 0) attributes.set("soft_cap", config_.attention_cap);
  return emit("attention", {q, written, positions, offsets, pages}, std::move(attributes));
}

ir::ValueId Parts::gated_mlp(ir::ValueId x, const std::string& prefix,
                             std::string_view activation) {
  const ir::ValueId gate = emit(activation, {linear(x, prefix + "ffn_gate", config_.feed_forward)});
  const ir::ValueId up = linear(x, prefix + "ffn_up", config_.feed_forward);
  return linear(emit("multiply", {gate, up}), prefix + "ffn_down", config_.hidden);
}

Result<ir::Graph> Parts::finish(ir::ValueId hidden) {
  const std::string name = has("output.weight") ? "output.weight" : "token_embd.weight";
  ir::ValueId logits = emit("matmul", {hidden, matrix(name, config_.vocabulary, config_.hidden)});
  if (config_.logit_cap > 0) logits = emit("tanh_cap", {logits}, {{"cap", config_.logit_cap}});
  builder_.output(logits, "logits");
  if (!status_.ok()) return status_.error();
  return builder_.finish();
}

}  // namespace hone::models

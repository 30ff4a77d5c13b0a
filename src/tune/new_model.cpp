// SPDX-License-Identifier: Apache-2.0
#include "tune/new_model.h"

#include <fmt/format.h>

#include <cmath>
#include <vector>

#include "base/random.h"
#include "engine/model_source.h"
#include "engine/rewrite.h"
#include "formats/gguf.h"

namespace hone::tune {
namespace {

using formats::MetaArray;
using formats::Metadata;

std::string utf8(std::uint32_t code) {
  if (code < 0x80) return std::string(1, static_cast<char>(code));
  return {static_cast<char>(0xC0 | (code >> 6)), static_cast<char>(0x80 | (code & 0x3F))};
}

// The characters that byte-level BPE writes for bytes: printable Latin-1 ones for themselves, the
// others from U+0100 on, in order (Radford et al. 2019).
formats::TextTable byte_tokens() {
  formats::TextTable tokens;
  std::uint32_t next = 256;
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    const bool plain = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    tokens.push_back(utf8(plain ? byte : next++));
  }
  return tokens;
}

void set_byte_vocabulary(Metadata& metadata) {
  formats::TextTable tokens = byte_tokens();
  tokens.push_back("<|endoftext|>");
  std::vector<std::int32_t> types(tokens.size(), 1);  // normal
  types.back() = 3;                                   // control
  metadata.set("tokenizer.ggml.model", std::string("gpt2"));
  metadata.set("tokenizer.ggml.pre", std::string("gpt-2"));
  metadata.set("tokenizer.ggml.tokens", MetaArray(std::move(tokens)));
  metadata.set("tokenizer.ggml.token_type", MetaArray(std::move(types)));
  metadata.set("tokenizer.ggml.merges", MetaArray(formats::TextTable{}));
  metadata.set("tokenizer.ggml.bos_token_id", std::uint32_t{256});
  metadata.set("tokenizer.ggml.eos_token_id", std::uint32_t{256});
  metadata.set("tokenizer.ggml.add_bos_token", false);
}

Result<std::int64_t> set_vocabulary(Metadata& metadata, const std::string& vocabulary) {
  if (vocabulary == "bytes") {
    set_byte_vocabulary(metadata);
  } else {
    auto source = engine::ModelSource::open(vocabulary);
    if (!source) return source.error();
    auto from = engine::gguf_metadata(*source);
    if (!from) return from.error();
    for (const Metadata::Entry& entry : from->entries()) {
      if (entry.key.starts_with("tokenizer.")) metadata.set(entry.key, entry.value);
    }
  }
  const auto tokens = metadata.texts("tokenizer.ggml.tokens");
  if (!tokens) return tokens.error();
  return static_cast<std::int64_t>((*tokens)->size());
}

struct Tensors {
  std::vector<formats::GgufTensorToWrite> list;
  std::uint64_t seed;

  void add(std::string name, std::vector<std::int64_t> shape, double deviation) {
    std::int64_t elements = 1;
    for (const std::int64_t size : shape) elements *= size;
    const std::uint64_t stream = list.size();
    const std::uint64_t key = seed;
    const auto fill = [elements, stream, key, deviation](const Append& append) -> Status {
      Random random(key, stream);
      std::vector<float> values(static_cast<std::size_t>(elements), 1.0F);
      if (deviation > 0) {
        for (float& value : values) value = random.normal() * static_cast<float>(deviation);
      }
      return append(std::as_bytes(std::span(values)));
    };
    list.push_back({std::move(name), DType::kF32, std::move(shape), {}, fill});
  }
};

}  // namespace

Result<NewModel> new_model_of_size(std::string_view size) {
  NewModel model;
  if (size == "tiny") {
    model.hidden = 128;
    model.layers = 4;
    model.heads = 4;
    model.kv_heads = 2;
    model.feed_forward = 384;
    return model;
  }
  if (size == "small") return model;
  if (size == "110m") {
    model.hidden = 768;
    model.layers = 12;
    model.heads = 12;
    model.kv_heads = 12;
    model.feed_forward = 2048;
    model.context = 1024;
    return model;
  }
  return Error{ErrorCode::kNotFound,
               "there is no model size of this name",
               "",
               std::string(size),
               "tiny, small or 110m",
               ""};
}

Status write_new_model(const std::string& path, const NewModel& model) {
  const bool sensible = model.hidden > 0 && model.layers > 0 && model.heads > 0 &&
                        model.kv_heads > 0 && model.heads % model.kv_heads == 0 &&
                        model.hidden % model.heads == 0 && model.hidden / model.heads % 8 == 0 &&
                        model.feed_forward > 0 && model.context > 1;
  if (!sensible) {
    return Error{ErrorCode::kInvalidArgument,
                 "these sizes make no model",
                 "",
                 fmt::format("hidden {}, layers {}, heads {}, kv heads {}", model.hidden,
                             model.layers, model.heads, model.kv_heads),
                 "heads that divide hidden into multiples of 8, and kv heads that divide heads",
                 ""};
  }
  Metadata metadata;
  const auto number = [&](const char* key, std::int64_t value) {
    metadata.set(std::string("llama.") + key, static_cast<std::uint32_t>(value));
  };
  metadata.set("general.architecture", std::string("llama"));
  metadata.set("general.name", std::string("pretrained by hone"));
  number("block_count", model.layers);
  number("embedding_length", model.hidden);
  number("feed_forward_length", model.feed_forward);
  number("attention.head_count", model.heads);
  number("attention.head_count_kv", model.kv_heads);
  number("context_length", model.context);
  number("rope.dimension_count", model.hidden / model.heads);
  metadata.set("llama.attention.layer_norm_rms_epsilon", 1e-5F);
  metadata.set("llama.rope.freq_base", 10000.0F);
  const auto vocabulary = set_vocabulary(metadata, model.vocabulary);
  if (!vocabulary) return vocabulary.error();
  number("vocab_size", *vocabulary);

  Tensors tensors{{}, model.seed};
  const double into_stream = 0.02 / std::sqrt(2.0 * static_cast<double>(model.layers));
  const std::int64_t kv = model.hidden / model.heads * model.kv_heads;
  tensors.add("token_embd.weight", {*vocabulary, model.hidden}, 0.02);
  for (std::int64_t layer = 0; layer < model.layers; ++layer) {
    const std::string prefix = fmt::format("blk.{}.", layer);
    tensors.add(prefix + "attn_norm.weight", {model.hidden}, 0);
    tensors.add(prefix + "attn_q.weight", {model.hidden, model.hidden}, 0.02);
    tensors.add(prefix + "attn_k.weight", {kv, model.hidden}, 0.02);
    tensors.add(prefix + "attn_v.weight", {kv, model.hidden}, 0.02);
    tensors.add(prefix + "attn_output.weight", {model.hidden, model.hidden}, into_stream);
    tensors.add(prefix + "ffn_norm.weight", {model.hidden}, 0);
    tensors.add(prefix + "ffn_gate.weight", {model.feed_forward, model.hidden}, 0.02);
    tensors.add(prefix + "ffn_up.weight", {model.feed_forward, model.hidden}, 0.02);
    tensors.add(prefix + "ffn_down.weight", {model.hidden, model.feed_forward}, into_stream);
  }
  tensors.add("output_norm.weight", {model.hidden}, 0);
  return formats::write_gguf(path, metadata, tensors.list);
}

}  // namespace hone::tune

// Llama and what shares its graph: SmolLM, TinyLlama, Mistral (Touvron et al. 2023).
// SPDX-License-Identifier: Apache-2.0
#include <array>

#include "models/parts.h"

namespace hone::models {
namespace {

using Kind = ConfigKey::Kind;

// GGUF keeps the rows of queries and keys so that rope turns neighbours; Hugging Face, halves.
constexpr std::array kTensors = {
    TensorName{"model.embed_tokens.weight", "token_embd.weight"},
    TensorName{"model.norm.weight", "output_norm.weight"},
    TensorName{"lm_head.weight", "output.weight"},
    TensorName{"model.layers.*.input_layernorm.weight", "blk.*.attn_norm.weight"},
    TensorName{"model.layers.*.self_attn.q_proj.weight", "blk.*.attn_q.weight", Change::kRopeQuery},
    TensorName{"model.layers.*.self_attn.k_proj.weight", "blk.*.attn_k.weight", Change::kRopeKey},
    TensorName{"model.layers.*.self_attn.v_proj.weight", "blk.*.attn_v.weight"},
    TensorName{"model.layers.*.self_attn.o_proj.weight", "blk.*.attn_output.weight"},
    TensorName{"model.layers.*.self_attn.q_proj.bias", "blk.*.attn_q.bias", Change::kRopeQuery},
    TensorName{"model.layers.*.self_attn.k_proj.bias", "blk.*.attn_k.bias", Change::kRopeKey},
    TensorName{"model.layers.*.self_attn.v_proj.bias", "blk.*.attn_v.bias"},
    TensorName{"model.layers.*.self_attn.o_proj.bias", "blk.*.attn_output.bias"},
    TensorName{"model.layers.*.post_attention_layernorm.weight", "blk.*.ffn_norm.weight"},
    TensorName{"model.layers.*.mlp.gate_proj.weight", "blk.*.ffn_gate.weight"},
    TensorName{"model.layers.*.mlp.up_proj.weight", "blk.*.ffn_up.weight"},
    TensorName{"model.layers.*.mlp.down_proj.weight", "blk.*.ffn_down.weight"},
};

constexpr std::array kKeys = {
    ConfigKey{"hidden_size", "*.embedding_length"},
    ConfigKey{"num_hidden_layers", "*.block_count"},
    ConfigKey{"num_attention_heads", "*.attention.head_count"},
    ConfigKey{"num_key_value_heads", "*.attention.head_count_kv"},
    ConfigKey{"head_dim", "*.attention.key_length"},
    ConfigKey{"intermediate_size", "*.feed_forward_length"},
    ConfigKey{"max_position_embeddings", "*.context_length"},
    ConfigKey{"vocab_size", "*.vocab_size"},
    ConfigKey{"rms_norm_eps", "*.attention.layer_norm_rms_epsilon", Kind::kNumber},
    ConfigKey{"rope_theta", "*.rope.freq_base", Kind::kNumber},
};

Result<Config> configure(const formats::Metadata& metadata, const FindWeight& weights) {
  ConfigReader reader(metadata);
  return read_config(reader, weights, "attention.layer_norm_rms_epsilon");
}

Result<ir::Graph> build(const Config& config, const Batch& batch, const FindWeight& weights) {
  Parts parts(config, batch, weights);
  ir::ValueId x = parts.emit(
      "gather",
      {parts.matrix("token_embd.weight", config.vocabulary, config.hidden), parts.tokens});
  const ir::ValueId table = parts.rope_table(config.rope_theta, config.rope_scale);
  for (std::int64_t layer = 0; layer < config.layers; ++layer) {
    const std::string prefix = layer_prefix(layer);
    const ir::ValueId normed = parts.norm(x, prefix + "attn_norm.weight");
    const std::int64_t kv = config.kv_heads * config.head_size;
    const ir::ValueId q = parts.linear(normed, prefix + "attn_q", config.heads * config.head_size);
    const ir::ValueId k = parts.linear(normed, prefix + "attn_k", kv);
    const ir::ValueId v = parts.linear(normed, prefix + "attn_v", kv);
    ir::ValueId attended = parts.attend(layer, q, k, v, table, true, 0);
    if (layer + 1 == config.layers) {  // nothing below reads the other rows
      attended = parts.wanted(attended);
      x = parts.wanted(x);
    }
    x = parts.add(x, parts.linear(attended, prefix + "attn_output", config.hidden));
    const ir::ValueId inner = parts.norm(x, prefix + "ffn_norm.weight");
    x = parts.add(x, parts.gated_mlp(inner, prefix, "silu"));
  }
  return parts.finish(parts.norm(x, "output_norm.weight"));
}

}  // namespace

const Family& llama_family() {
  static const Family kFamily{"llama",
                              "Llama, SmolLM, TinyLlama, Mistral",
                              "llama",
                              "llama",
                              "LlamaForCausalLM",
                              kTensors,
                              kKeys,
                              configure,
                              build};
  return kFamily;
}

}  // namespace hone::models

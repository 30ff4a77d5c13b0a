// Gemma 3 (Gemma Team 2025): norms before and after each block, norms on heads, windows on most
// layers, embeddings scaled by sqrt(hidden).
// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <cmath>

#include "models/parts.h"

namespace hone::models {
namespace {

using Kind = ConfigKey::Kind;

// Hugging Face keeps w where the model multiplies by 1 + w; GGUF keeps 1 + w.
constexpr std::array kTensors = {
    TensorName{"model.embed_tokens.weight", "token_embd.weight"},
    TensorName{"model.norm.weight", "output_norm.weight", Change::kPlusOne},
    TensorName{"lm_head.weight", "output.weight"},
    TensorName{"model.layers.*.input_layernorm.weight", "blk.*.attn_norm.weight", Change::kPlusOne},
    TensorName{"model.layers.*.self_attn.q_proj.weight", "blk.*.attn_q.weight"},
    TensorName{"model.layers.*.self_attn.k_proj.weight", "blk.*.attn_k.weight"},
    TensorName{"model.layers.*.self_attn.v_proj.weight", "blk.*.attn_v.weight"},
    TensorName{"model.layers.*.self_attn.o_proj.weight", "blk.*.attn_output.weight"},
    TensorName{"model.layers.*.self_attn.q_norm.weight", "blk.*.attn_q_norm.weight",
               Change::kPlusOne},
    TensorName{"model.layers.*.self_attn.k_norm.weight", "blk.*.attn_k_norm.weight",
               Change::kPlusOne},
    TensorName{"model.layers.*.post_attention_layernorm.weight", "blk.*.post_attention_norm.weight",
               Change::kPlusOne},
    TensorName{"model.layers.*.pre_feedforward_layernorm.weight", "blk.*.ffn_norm.weight",
               Change::kPlusOne},
    TensorName{"model.layers.*.post_feedforward_layernorm.weight", "blk.*.post_ffw_norm.weight",
               Change::kPlusOne},
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
    ConfigKey{"head_dim", "*.attention.value_length"},
    ConfigKey{"intermediate_size", "*.feed_forward_length"},
    ConfigKey{"max_position_embeddings", "*.context_length"},
    ConfigKey{"sliding_window", "*.attention.sliding_window"},
    ConfigKey{"rms_norm_eps", "*.attention.layer_norm_rms_epsilon", Kind::kNumber},
    ConfigKey{"rope_theta", "*.rope.freq_base", Kind::kNumber},
    ConfigKey{"rope_local_base_freq", "*.rope.local.freq_base", Kind::kNumber},
};

Result<Config> configure(const formats::Metadata& metadata, const FindWeight& weights) {
  ConfigReader reader(metadata);
  auto config = read_config(reader, weights, "attention.layer_norm_rms_epsilon");
  if (!config) return config;
  config->window = reader.integer_or("attention.sliding_window", 0);
  config->window_period = reader.integer_or("attention.sliding_window_pattern", 6);
  config->rope_theta_local = reader.number_or("rope.local.freq_base", 10000);
  config->query_scale = reader.number_or("attention.scale", 0);
  config->logit_cap = reader.number_or("final_logit_softcapping", 0);
  config->attention_cap = reader.number_or("attn_logit_softcapping", 0);
  if (!reader.status().ok()) return reader.status().error();
  return config;
}

Result<ir::Graph> build(const Config& config, const Batch& batch, const FindWeight& weights) {
  Parts parts(config, batch, weights);
  ir::ValueId x = parts.emit(
      "gather",
      {parts.matrix("token_embd.weight", config.vocabulary, config.hidden), parts.tokens});
  x = parts.emit("scale", {x}, {{"factor", std::sqrt(static_cast<double>(config.hidden))}});
  const ir::ValueId global = parts.rope_table(config.rope_theta, config.rope_scale);
  const ir::ValueId local = parts.rope_table(config.rope_theta_local, 1.0);
  for (std::int64_t layer = 0; layer < config.layers; ++layer) {
    const std::string prefix = layer_prefix(layer);
    const ir::ValueId normed = parts.norm(x, prefix + "attn_norm.weight");
    const std::int64_t kv = config.kv_heads * config.head_size;
    ir::ValueId q = parts.linear(normed, prefix + "attn_q", config.heads * config.head_size);
    ir::ValueId k = parts.linear(normed, prefix + "attn_k", kv);
    const ir::ValueId v = parts.linear(normed, prefix + "attn_v", kv);
    q = parts.head_norm(q, prefix + "attn_q_norm.weight", config.heads);
    k = parts.head_norm(k, prefix + "attn_k_norm.weight", config.kv_heads);
    const bool windowed =
        config.window > 0 && config.window_period > 0 && (layer + 1) % config.window_period != 0;
    ir::ValueId attended = parts.attend(layer, q, k, v, windowed ? local : global, false,
                                        windowed ? config.window : 0);
    if (layer + 1 == config.layers) {
      attended = parts.wanted(attended);
      x = parts.wanted(x);
    }
    const ir::ValueId projected = parts.linear(attended, prefix + "attn_output", config.hidden);
    x = parts.add(x, parts.norm(projected, prefix + "post_attention_norm.weight"));
    const ir::ValueId inner = parts.norm(x, prefix + "ffn_norm.weight");
    const ir::ValueId mlp = parts.gated_mlp(inner, prefix, "gelu");
    x = parts.add(x, parts.norm(mlp, prefix + "post_ffw_norm.weight"));
  }
  return parts.finish(parts.norm(x, "output_norm.weight"));
}

}  // namespace

const Family& gemma3_family() {
  static const Family kFamily{"gemma3",      "Gemma 3, text",     "gemma3",
                              "gemma3_text", "Gemma3ForCausalLM", kTensors,
                              kKeys,         configure,           build};
  return kFamily;
}

}  // namespace hone::models

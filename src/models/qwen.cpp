// SPDX-License-Identifier: Apache-2.0
#include "models/qwen.h"

#include <array>

#include "models/parts.h"

namespace hone::models {

using Kind = ConfigKey::Kind;

std::span<const TensorName> qwen_tensors() {
  static constexpr std::array kTensors = {
      TensorName{"model.embed_tokens.weight", "token_embd.weight"},
      TensorName{"model.norm.weight", "output_norm.weight"},
      TensorName{"lm_head.weight", "output.weight"},
      TensorName{"model.layers.*.input_layernorm.weight", "blk.*.attn_norm.weight"},
      TensorName{"model.layers.*.self_attn.q_proj.weight", "blk.*.attn_q.weight"},
      TensorName{"model.layers.*.self_attn.k_proj.weight", "blk.*.attn_k.weight"},
      TensorName{"model.layers.*.self_attn.v_proj.weight", "blk.*.attn_v.weight"},
      TensorName{"model.layers.*.self_attn.o_proj.weight", "blk.*.attn_output.weight"},
      TensorName{"model.layers.*.self_attn.q_proj.bias", "blk.*.attn_q.bias"},
      TensorName{"model.layers.*.self_attn.k_proj.bias", "blk.*.attn_k.bias"},
      TensorName{"model.layers.*.self_attn.v_proj.bias", "blk.*.attn_v.bias"},
      TensorName{"model.layers.*.self_attn.q_norm.weight", "blk.*.attn_q_norm.weight"},
      TensorName{"model.layers.*.self_attn.k_norm.weight", "blk.*.attn_k_norm.weight"},
      TensorName{"model.layers.*.post_attention_layernorm.weight", "blk.*.ffn_norm.weight"},
      TensorName{"model.layers.*.mlp.gate_proj.weight", "blk.*.ffn_gate.weight"},
      TensorName{"model.layers.*.mlp.up_proj.weight", "blk.*.ffn_up.weight"},
      TensorName{"model.layers.*.mlp.down_proj.weight", "blk.*.ffn_down.weight"},
  };
  return kTensors;
}

std::span<const ConfigKey> qwen_keys() {
  static constexpr std::array kKeys = {
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
  return kKeys;
}

Result<Config> configure_qwen(const formats::Metadata& metadata, const FindWeight& weights) {
  ConfigReader reader(metadata);
  return read_config(reader, weights, "attention.layer_norm_rms_epsilon");
}

Result<ir::Graph> build_qwen(const Config& config, const Batch& batch, const FindWeight& weights) {
  Parts parts(config, batch, weights);
  ir::ValueId x = parts.emit(
      "gather",
      {parts.matrix("token_embd.weight", config.vocabulary, config.hidden), parts.tokens});
  const ir::ValueId table = parts.rope_table(config.rope_theta, config.rope_scale);
  for (std::int64_t layer = 0; layer < config.layers; ++layer) {
    const std::string prefix = layer_prefix(layer);
    const ir::ValueId normed = parts.norm(x, prefix + "attn_norm.weight");
    const std::int64_t kv = config.kv_heads * config.head_size;
    ir::ValueId q = parts.linear(normed, prefix + "attn_q", config.heads * config.head_size);
    ir::ValueId k = parts.linear(normed, prefix + "attn_k", kv);
    const ir::ValueId v = parts.linear(normed, prefix + "attn_v", kv);
    if (parts.has(prefix + "attn_q_norm.weight")) {  // Qwen 3
      q = parts.head_norm(q, prefix + "attn_q_norm.weight", config.heads);
      k = parts.head_norm(k, prefix + "attn_k_norm.weight", config.kv_heads);
    }
    ir::ValueId attended = parts.attend(layer, q, k, v, table, false, 0);
    if (layer + 1 == config.layers) {
      attended = parts.wanted(attended);
      x = parts.wanted(x);
    }
    x = parts.add(x, parts.linear(attended, prefix + "attn_output", config.hidden));
    const ir::ValueId inner = parts.norm(x, prefix + "ffn_norm.weight");
    x = parts.add(x, parts.gated_mlp(inner, prefix, "silu"));
  }
  return parts.finish(parts.norm(x, "output_norm.weight"));
}

}  // namespace hone::models

// SPDX-License-Identifier: Apache-2.0
#include "models/decoder.h"

#include "models/parts.h"

namespace hone::models {

Result<ir::Graph> build_decoder(const Config& config, const Batch& batch, const FindWeight& weights,
                                bool interleaved) {
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
    if (parts.has(prefix + "attn_q_norm.weight")) {
      q = parts.head_norm(q, prefix + "attn_q_norm.weight", config.heads);
      k = parts.head_norm(k, prefix + "attn_k_norm.weight", config.kv_heads);
    }
    ir::ValueId attended = parts.attend(layer, q, k, v, table, interleaved, 0);
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

}  // namespace hone::models

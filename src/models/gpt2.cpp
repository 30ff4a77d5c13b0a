// GPT-2 (Radford et al. 2019): learned positions, layer norms, biases everywhere.
// SPDX-License-Identifier: Apache-2.0
#include <array>

#include "models/parts.h"

namespace hone::models {
namespace {

using Kind = ConfigKey::Kind;

constexpr std::array kTensors = {
    TensorName{"transformer.wte.weight", "token_embd.weight"},
    TensorName{"transformer.wpe.weight", "position_embd.weight"},
    TensorName{"transformer.ln_f.weight", "output_norm.weight"},
    TensorName{"transformer.ln_f.bias", "output_norm.bias"},
    TensorName{"lm_head.weight", "output.weight"},
    TensorName{"transformer.h.*.ln_1.weight", "blk.*.attn_norm.weight"},
    TensorName{"transformer.h.*.ln_1.bias", "blk.*.attn_norm.bias"},
    TensorName{"transformer.h.*.attn.c_attn.weight", "blk.*.attn_qkv.weight", Change::kTranspose},
    TensorName{"transformer.h.*.attn.c_attn.bias", "blk.*.attn_qkv.bias"},
    TensorName{"transformer.h.*.attn.c_proj.weight", "blk.*.attn_output.weight",
               Change::kTranspose},
    TensorName{"transformer.h.*.attn.c_proj.bias", "blk.*.attn_output.bias"},
    TensorName{"transformer.h.*.ln_2.weight", "blk.*.ffn_norm.weight"},
    TensorName{"transformer.h.*.ln_2.bias", "blk.*.ffn_norm.bias"},
    TensorName{"transformer.h.*.mlp.c_fc.weight", "blk.*.ffn_up.weight", Change::kTranspose},
    TensorName{"transformer.h.*.mlp.c_fc.bias", "blk.*.ffn_up.bias"},
    TensorName{"transformer.h.*.mlp.c_proj.weight", "blk.*.ffn_down.weight", Change::kTranspose},
    TensorName{"transformer.h.*.mlp.c_proj.bias", "blk.*.ffn_down.bias"},
};

constexpr std::array kKeys = {
    ConfigKey{"n_embd", "*.embedding_length"},
    ConfigKey{"n_layer", "*.block_count"},
    ConfigKey{"n_head", "*.attention.head_count"},
    ConfigKey{"n_inner", "*.feed_forward_length"},
    ConfigKey{"n_positions", "*.context_length"},
    ConfigKey{"layer_norm_epsilon", "*.attention.layer_norm_epsilon", Kind::kNumber},
};

Result<Config> configure(const formats::Metadata& metadata, const FindWeight& weights) {
  ConfigReader reader(metadata);
  return read_config(reader, weights, "attention.layer_norm_epsilon");
}

Result<ir::Graph> build(const Config& config, const Batch& batch, const FindWeight& weights) {
  Parts parts(config, batch, weights);
  const ir::ValueId words = parts.emit(
      "gather",
      {parts.matrix("token_embd.weight", config.vocabulary, config.hidden), parts.tokens});
  const ir::ValueId places = parts.emit(
      "gather",
      {parts.matrix("position_embd.weight", config.context, config.hidden), parts.positions});
  ir::ValueId x = parts.add(words, places);
  for (std::int64_t layer = 0; layer < config.layers; ++layer) {
    const std::string prefix = layer_prefix(layer);
    const ir::ValueId normed = parts.layer_norm(x, prefix + "attn_norm");
    const ir::ValueId qkv = parts.linear(normed, prefix + "attn_qkv", 3 * config.hidden);
    const auto part = [&](std::int64_t index) {
      return parts.emit("columns", {qkv},
                        {{"start", index * config.hidden}, {"count", config.hidden}});
    };
    ir::ValueId attended =
        parts.attend(layer, part(0), part(1), part(2), Parts::kNoTable, false, 0);
    if (layer + 1 == config.layers) {
      attended = parts.wanted(attended);
      x = parts.wanted(x);
    }
    x = parts.add(x, parts.linear(attended, prefix + "attn_output", config.hidden));
    const ir::ValueId inner = parts.layer_norm(x, prefix + "ffn_norm");
    const ir::ValueId up =
        parts.emit("gelu", {parts.linear(inner, prefix + "ffn_up", config.feed_forward)});
    x = parts.add(x, parts.linear(up, prefix + "ffn_down", config.hidden));
  }
  return parts.finish(parts.layer_norm(x, "output_norm"));
}

}  // namespace

const Family& gpt2_family() {
  static const Family kFamily{"gpt2",   "GPT-2", "gpt2",    "gpt2", "GPT2LMHeadModel",
                              kTensors, kKeys,   configure, build};
  return kFamily;
}

}  // namespace hone::models

// Adapters for a model: read out of GGUF files and PEFT folders, checked against it, written back.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "base/status.h"
#include "engine/model_source.h"
#include "formats/adapter.h"
#include "passes/transform/lora.h"

namespace hone::engine {

// A GGUF file, or a PEFT folder, whose names and rows become those of GGUF (of llama's queries and
// keys GGUF has another order of rows). Fits the model: see fits_model.
Result<formats::Adapter> read_adapter(const std::string& path, const ModelSource& model);

// Errors: kInvalidArgument for an adapter of another architecture or with other sizes (a soft
// prompt's columns are the model's hidden size, its tokens fewer than the context), kNotFound
// for a weight that the model lacks, kUnsupported for embeddings, for an output that is tied to
// them, and for weights of a type that cannot be decoded.
Status fits_model(const formats::Adapter& adapter, const ModelSource& model);

// A name that ends in .gguf becomes a GGUF file, which llama.cpp loads (a pooled one it refuses);
// any other a PEFT folder. `adapter` fits the model.
Status write_adapter(const std::string& path, const formats::Adapter& adapter,
                     const ModelSource& model);

// The pass that runs it, of all but soft prompts. The scale is not in it: Session::attach puts it
// into B.
passes::LoraOptions lora_options(const formats::Adapter& adapter);

// What DoRA multiplies every output of a weight by: magnitude / |row of W + scale * B A|. (R)
// `strength` multiplies the adapter's own scale, and leads from 1 (strength 0) to that (1).
// `adapter` fits the model.
std::vector<float> dora_gain(const std::string& name, const formats::Adapter& adapter,
                             const ModelSource& model, double strength = 1);

// Weights of the model that words address, in the model's order. Comma-separated:
//   q k v o gate up down qkv     of every layer
//   attn mlp all                 those of attention, of the feed-forward part, both
//   head                         the output matrix, where it is not the embedding
//   a name                       "q_proj", "attn_q", "blk.0.attn_q.weight", or Hugging Face's
//   a regular expression         found anywhere in a name of either world: "layers\.[0-3]\."
// kNotFound for a word that addresses nothing, with what there is; kCorrupt for a broken
// expression.
Result<std::vector<std::string>> select_modules(const ModelSource& model, std::string_view words);

// The layer of a tensor by its name, as in "blk.7.attn_q.weight.lora_b"; -1 where it has none.
std::int64_t layer_of(std::string_view name);

// The name in Hugging Face's model of a GGUF weight; empty where it has none.
std::string hugging_face_weight(const ModelSource& model, std::string_view gguf);

}  // namespace hone::engine

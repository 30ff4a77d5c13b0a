// A model family: which files it reads, its configuration, its graph. One file a family.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "base/status.h"
#include "formats/gguf_metadata.h"
#include "ir/graph.h"

namespace hone::models {

// What a family's graph is made from, read out of GGUF metadata.
struct Config {
  std::string architecture;     // "llama"
  std::int64_t vocabulary = 0;  // V
  std::int64_t hidden = 0;      // C
  std::int64_t layers = 0;
  std::int64_t heads = 0;      // H
  std::int64_t kv_heads = 0;   // KV
  std::int64_t head_size = 0;  // D
  std::int64_t feed_forward = 0;
  std::int64_t context = 0;  // the longest sequence that the model was made for
  double epsilon = 1e-5;     // of the norms
  double rope_theta = 10000;
  double rope_scale = 1;        // factor of all frequencies (linear scaling: 1 / factor)
  std::int64_t rope_dims = 0;   // dimensions of a head that turn
  double rope_theta_local = 0;  // of layers with a window, where they differ
  std::int64_t window = 0;      // tokens that a layer with a window sees
  // Layer i sees everything if (i + 1) % window_period == 0, else only the window; 0: all windows
  // off.
  std::int64_t window_period = 0;
  double query_scale = 0;  // of attention scores; 0: 1 / sqrt(head_size)
  double attention_cap = 0;
  double logit_cap = 0;
};

// Shapes of one batch; a program is compiled for each (DESIGN: concrete shapes).
struct Batch {
  std::int64_t tokens = 1;     // N
  std::int64_t sequences = 1;  // S
  std::int64_t pages = 1;      // P: length of each sequence's page table
  std::int64_t rows = 1;       // R: tokens whose logits are wanted
};

// The type of a weight by name; nullptr where the model has none.
using FindWeight = std::function<const ir::Type*(std::string_view name)>;

// How a tensor changes between Hugging Face's file and GGUF's.
enum class Change : std::uint8_t {
  kNone,
  kRopeQuery,  // rows of each query head: halves to pairs (GGUF's llama turns neighbours)
  kRopeKey,    // the same for key heads
  kPlusOne,    // GGUF stores w + 1 (Gemma's norms)
  kTranspose,  // Hugging Face stores (inputs, outputs) (GPT-2's Conv1D)
};

// Names in the two worlds; '*' stands for the layer's number.
struct TensorName {
  std::string_view hugging_face;
  std::string_view gguf;
  Change change = Change::kNone;
};

struct ConfigKey {
  std::string_view hugging_face;
  std::string_view gguf;
  enum class Kind : std::uint8_t { kInteger, kNumber } kind = Kind::kInteger;
};

struct Family {
  std::string_view name;                // "llama"
  std::string_view summary;             // one sentence
  std::string_view architecture;        // GGUF's general.architecture
  std::string_view hugging_face_type;   // config.json's model_type
  std::string_view hugging_face_class;  // config.json's architectures[0]
  std::span<const TensorName> tensors;
  std::span<const ConfigKey> keys;

  Result<Config> (*configure)(const formats::Metadata& metadata,
                              const FindWeight& weights) = nullptr;
  // Inputs: tokens (N), positions (N), slots (N), offsets (S + 1), pages (S, P), rows (R), all i32.
  // Output: logits (R, V).
  Result<ir::Graph> (*build)(const Config& config, const Batch& batch,
                             const FindWeight& weights) = nullptr;
};

std::span<const Family* const> all_families();
const Family* find_family(std::string_view architecture);       // by GGUF's name
const Family* find_hugging_face_family(std::string_view type);  // by config.json's model_type

#define HONE_MODEL(name) const Family& name##_family();
#include "models/list.inc"
#undef HONE_MODEL

}  // namespace hone::models

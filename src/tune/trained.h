// What a method trains: tensors beside the model's or in front of them, and how the graph reads
// them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "engine/session.h"
#include "formats/adapter.h"
#include "ir/graph.h"

namespace hone::tune {

struct MethodOptions {
  std::string method = "lora";  // lora, pooled, dora, full, head, prompt, scale
  std::string modules = "all";  // of adapters and scales: engine::select_modules
  std::int64_t rank = 16;
  double alpha = 32;  // the adapter's part is multiplied by alpha / rank
  std::uint64_t seed = 1;
  double dropout = 0;  // chance of dropping an element in front of an adapter's A
  // Of a soft prompt: how many tokens, and the text whose embedding it begins as, repeated or cut
  // to that many; empty: tokens drawn by the seed.
  std::int64_t virtual_tokens = 16;
  std::string prompt_text = {};
  std::int64_t layers = 0;  // adapters stand in the last so many layers alone; 0: in all
  bool fixed_a = false;     // B alone changes: forward passes have less to find out
  // Of full: what turns tokens into rows and back does not change (tangents have no rule for it).
  bool tokens_stay = false;
  // Of scale, what a factor is of: tied (scale and minimum), scale or minimum
  // (passes::ScaleView).
  std::string view = "tied";
};

// One tensor that changes. Its memory is the session's.
struct TrainedTensor {
  std::string name;  // of the parameter in the graph
  ir::Shape shape;
  std::span<float> values;
  bool fixed = false;  // it belongs to what is written, but does not change
};

struct Trained {
  MethodOptions options;
  std::vector<TrainedTensor> tensors;
  // Puts what is trained into the model's graph; empty where the graph reads it already.
  std::function<Result<ir::Graph>(const ir::Graph& graph)> adapt;
  // The same without what is drawn by chance: for scoring.
  std::function<Result<ir::Graph>(const ir::Graph& graph)> adapt_exactly;
  bool trains_output = false;        // the output matrix is among the tensors
  std::size_t tensors_each = 2;      // of an adapter: A, B and, of DoRA, the magnitude
  std::vector<std::string> weights;  // of the model that adapters stand beside
  std::int64_t virtual_tokens = 0;   // in front of every example
  std::int64_t parameters() const;   // numbers that change
  // Sets an adapter's tensors to a record's values (whose B is without the scale).
  void write_back(const formats::Adapter& adapter);
  std::int64_t bytes() const { return parameters() * static_cast<std::int64_t>(sizeof(float)); }
};

// Whether the method leaves an adapter, rather than changed weights of the model.
bool trains_adapter(std::string_view method);

// Makes the tensors: of a soft prompt rows of the embedding; of an adapter A uniform in
// +-1/sqrt(K), as PEFT's kaiming_uniform_(a = sqrt 5), and B zero, so that training begins at the
// model itself; of `full` and `head` the file's weights in f32; of `scale` a factor 1 + F for every
// f16 scale of the block-quantized weights among the modules, F zero. Errors: kInvalidArgument for
// a method that is none or a rank out of range, kNotFound for modules that address nothing.
Result<Trained> prepare(engine::Session& session, const MethodOptions& options);

// An adapter's tensors as a record that engine::write_adapter takes.
formats::Adapter adapter_of(const Trained& trained, const engine::Session& session);

// The model with the trained tensors in place of its own, as a GGUF file: they in f32, everything
// else as it is. Of `scale` the weights keep their types and codes, and their scales are multiplied
// and rounded to f16: the file has the size that it had.
Status write_model(const Trained& trained, const engine::Session& session, const std::string& path);

// The bytes of a weight of the model with its trained factors in its scales.
std::vector<std::byte> scaled_bytes(const Trained& trained, const engine::Session& session,
                                    std::size_t index);

// Of `scale`: the weights of the session with the trained factors in them, for programs that know
// of no factors; and back to the file's bits.
Status show_scales(const Trained& trained, engine::Session& session, bool on);

}  // namespace hone::tune

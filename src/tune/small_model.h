// A byte-level language model of Llama's shape, small enough to train in a recipe.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "base/threads.h"
#include "ir/graph.h"
#include "tune/network.h"

namespace hone::tune {

struct SmallModelOptions {
  std::int64_t layers = 4;
  std::int64_t hidden = 128;  // C; heads of 32 dimensions
  std::int64_t feed_forward = 384;
  std::int64_t sequences = 8;  // of a batch
  std::int64_t length = 64;    // bytes of a sequence
  bool head_norms = false;     // norms of queries and keys, head by head
};

// What a model learns from: bytes, whose last tenth is held out.
struct ByteText {
  std::string bytes;
  std::size_t train_bytes() const { return bytes.size() - bytes.size() / 10; }
};

// The prompts and answers of a file of training data (tune/data), one behind the other.
Result<ByteText> read_byte_text(const std::string& path);
// Sentences of a grammar of about 60 words, for runs without data: agreement in number, relative
// clauses and sums of two digits, so that there is something to learn at several distances.
ByteText grammar_text(std::uint64_t seed, std::size_t bytes);

// How a model computes: passes over its graph before and after the gradients are there.
struct Arithmetic {
  std::string name = "f32";  // one name, one program
  std::function<Result<ir::Graph>(const ir::Graph&)> before = nullptr, after = nullptr;
};

class SmallModel {
 public:
  // Weights normal with deviation 0.02, embedding and output tied (as GPT-2's).
  static Result<SmallModel> make(ThreadPool& pool, const SmallModelOptions& options,
                                 std::uint64_t seed);

  // Mean loss in nats a byte and gradients of all parameters (in the order of trained()) on batch
  // `step` of the text, drawn from the seed alone. Valid until the next run.
  struct Outcome {
    double loss = 0;
    std::vector<std::span<const float>> gradients;
  };
  Result<Outcome> gradients(const ByteText& text, std::int64_t step, const Arithmetic& arithmetic);
  // Mean loss of `batches` batches of what was held out: the same bytes at every call.
  Result<double> held_out_loss(const ByteText& text, std::int64_t batches,
                               const Arithmetic& arithmetic);

  Network& network() { return *network_; }
  const SmallModelOptions& options() const { return options_; }
  const std::vector<std::string>& trained() const { return trained_; }
  std::int64_t tokens() const { return options_.sequences * options_.length; }
  // The graph of a batch: inputs tokens, positions, offsets, rows, targets, weights; output loss.
  Result<ir::Graph> graph(bool weight_gradient) const;
  // The inputs of that graph for sequences that begin at these bytes.
  struct Batch {
    std::vector<std::int32_t> tokens, positions, offsets, rows, targets, zeros;
    std::vector<float> weights;
    std::vector<Network::Input> inputs() const;
  };
  Batch batch_at(const ByteText& text, const std::vector<std::size_t>& starts) const;
  Batch training_batch(const ByteText& text, std::int64_t step) const;
  Batch held_out_batch(const ByteText& text, std::int64_t index) const;

 private:
  SmallModel(ThreadPool& pool, const SmallModelOptions& options, std::uint64_t seed)
      : options_(options), seed_(seed), network_(std::make_unique<Network>(pool)) {}

  SmallModelOptions options_;
  std::uint64_t seed_;
  std::unique_ptr<Network> network_;
  std::vector<std::string> trained_;
};

}  // namespace hone::tune

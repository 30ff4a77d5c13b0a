// A multilayer perceptron with one or several softmax heads, for recipes about optimizers.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "base/threads.h"
#include "ir/graph.h"
#include "tune/network.h"

namespace hone::tune {

struct ClassifierOptions {
  std::int64_t features = 1;          // F
  std::int64_t hidden = 64;           // C
  std::int64_t layers = 1;            // of width C, each with a bias and GELU; the trunk
  std::vector<std::int64_t> classes;  // V of each head; heads have no bias
};

// M rows, and what each head shall say about them. A row of weight 0 is none of that head's.
struct ClassifierBatch {
  struct Labels {
    std::vector<std::int32_t> targets;  // (M)
    std::vector<float> weights;         // (M): losses are sums of weight times cross-entropy
  };
  std::vector<float> features;  // (M, F)
  std::vector<Labels> labels;   // one for each of the heads that are asked
};

class Classifier {
 public:
  // Matrices normal with deviation sqrt(2 / columns) (He et al. 2015), heads sqrt(1 / columns).
  static Result<Classifier> make(ThreadPool& pool, const ClassifierOptions& options,
                                 std::uint64_t seed);

  Network& network() { return *network_; }
  const std::vector<std::string>& trunk() const { return trunk_; }
  std::string head_name(std::int64_t head) const;
  // The trunk's parameters, then those of these heads: the order of the gradients.
  std::vector<std::string> parameters_of(std::span<const std::int64_t> heads) const;

  // The losses of the heads one by one, and the gradients of their sum. One forward and one
  // backward pass through the trunk, whatever the number of heads. Valid until the next call.
  struct Outcome {
    std::vector<double> losses;
    std::vector<std::span<const float>> gradients;  // none of `losses`
  };
  Result<Outcome> gradients(std::span<const std::int64_t> heads, const ClassifierBatch& batch) {
    return run(heads, batch, true);
  }
  Result<Outcome> losses(std::span<const std::int64_t> heads, const ClassifierBatch& batch) {
    return run(heads, batch, false);
  }
  // The class with the largest logit of each of the rows (M, F). Programs are made for a number of
  // rows: ask in equal portions.
  Result<std::vector<std::int32_t>> predict(std::int64_t head, std::span<const float> features);
  // The part of the rows whose class is the target, asked in portions of at most 256 rows.
  Result<double> accuracy(std::int64_t head, std::span<const float> features,
                          std::span<const std::int32_t> targets);

 private:
  Classifier(ThreadPool& pool, ClassifierOptions options)
      : options_(std::move(options)), network_(std::make_unique<Network>(pool)) {}
  Result<Outcome> run(std::span<const std::int64_t> heads, const ClassifierBatch& batch,
                      bool train);
  Result<ir::Graph> loss_graph(std::span<const std::int64_t> heads, std::int64_t rows,
                               bool train) const;
  Result<ir::Graph> logits_graph(std::int64_t head, std::int64_t rows) const;
  ir::ValueId hidden_of(ir::Builder& builder, std::int64_t rows) const;

  ClassifierOptions options_;
  std::unique_ptr<Network> network_;
  std::vector<std::string> trunk_;
};

}  // namespace hone::tune

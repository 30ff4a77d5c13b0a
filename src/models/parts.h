// The blocks that families are built from: weights by name, projections, attention over the cache.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "models/family.h"

namespace hone::models {

// Reads "<architecture>.<key>" of GGUF metadata; the first error is kept.
class ConfigReader {
 public:
  explicit ConfigReader(const formats::Metadata& metadata);
  const std::string& architecture() const { return architecture_; }
  std::int64_t integer(std::string_view key);
  std::int64_t integer_or(std::string_view key, std::int64_t otherwise);
  double number(std::string_view key);
  double number_or(std::string_view key, double otherwise);
  std::string text_or(std::string_view key, std::string otherwise);
  const Status& status() const { return status_; }

 private:
  template <typename T>
  T keep(Result<T> result);
  std::string full(std::string_view key) const { return architecture_ + "." + std::string(key); }
  const formats::Metadata& metadata_;
  std::string architecture_;
  Status status_;
};

// What all families have in common: sizes, rope, norms; checked for sense.
Result<Config> read_config(ConfigReader& reader, const FindWeight& weights,
                           std::string_view epsilon_key);

// Builds one family's graph. Values are named by role; shapes are (N, …) rows.
class Parts {
 public:
  Parts(const Config& config, const Batch& batch, const FindWeight& weights);

  // Inputs of the batch.
  ir::ValueId tokens, positions, slots, offsets, pages, rows;

  ir::Builder& builder() { return builder_; }
  const Config& config() const { return config_; }
  bool has(std::string_view name) const { return weights_(name) != nullptr; }

  // A weight matrix (rows, columns) in the file's dtype, or a vector as f32.
  ir::ValueId matrix(const std::string& name, std::int64_t rows, std::int64_t columns);
  ir::ValueId vector(const std::string& name, std::int64_t size);

  ir::ValueId emit(std::string_view op, std::vector<ir::ValueId> operands,
                   ir::Attributes attributes = {}) {
    return builder_.emit(op, std::move(operands), std::move(attributes));
  }
  ir::ValueId add(ir::ValueId a, ir::ValueId b) { return emit("add", {a, b}); }
  // rms_norm with the weight `name`.
  ir::ValueId norm(ir::ValueId x, const std::string& name);
  // rms_norm over each head: weight of head_size elements.
  ir::ValueId head_norm(ir::ValueId x, const std::string& name, std::int64_t heads);
  ir::ValueId layer_norm(ir::ValueId x, const std::string& name);
  // x times `name`.weight, plus `name`.bias where the model has one.
  ir::ValueId linear(ir::ValueId x, const std::string& name, std::int64_t rows);
  // Queries, keys and values of a layer to what attention reads; rope where a table is given
  // (kNoTable: none).
  static constexpr ir::ValueId kNoTable = -1;
  ir::ValueId attend(std::int64_t layer, ir::ValueId q, ir::ValueId k, ir::ValueId v,
                     ir::ValueId table, bool interleaved, std::int64_t window);
  ir::ValueId rope_table(double theta, double scale);
  // down(activation(gate x) * up x)
  ir::ValueId gated_mlp(ir::ValueId x, const std::string& prefix, std::string_view activation);
  // Only the rows whose logits are wanted.
  ir::ValueId wanted(ir::ValueId x) { return emit("gather", {x, rows}); }
  // Logits by `output.weight`, or by the embedding where the model ties them.
  Result<ir::Graph> finish(ir::ValueId hidden);

 private:
  ir::ValueId source(const std::string& name, ir::Shape shape, bool as_f32);
  const Config& config_;
  const Batch batch_;
  const FindWeight& weights_;
  ir::Builder builder_;
  Status status_;
};

// "blk.<layer>."
std::string layer_prefix(std::int64_t layer);

}  // namespace hone::models

// Causal attention of a ragged batch over a paged cache (Vaswani et al. 2017; grouped heads).
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include "ops/cache_support.h"
#include "ops/registry.h"
#include "ops/support.h"

namespace hone::ops {
namespace {

// operands: queries (N, H * D), cache (KV, D), positions (N), offsets (S + 1): tokens offsets[s] ..
// offsets[s + 1] belong to sequence s, at consecutive positions; pages (S, P): its page table.
// A token sees the positions up to its own, and with a `window` only that many of them.
TypesResult infer(Types operands, const Attributes& attributes) {
  bool fits = operands.size() == 5 && is_dense(operands[0]) && operands[0].shape.size() == 2 &&
              operands[1].layout == Layout::kCache && operands[1].shape.size() == 2 &&
              is_indices(operands[2]) && operands[2].shape[0] == operands[0].rows() &&
              is_indices(operands[3]) && operands[4].dtype == DType::kI32 &&
              operands[4].shape.size() == 2 && operands[3].shape[0] == operands[4].shape[0] + 1;
  if (fits) {
    const std::int64_t heads = attributes.integer("heads");
    fits = heads > 0 && heads % operands[1].shape[0] == 0 && operands[0].columns() % heads == 0 &&
           operands[0].columns() / heads == operands[1].shape[1] && attributes.number("scale") > 0;
  }
  if (!fits) {
    return ir::type_error(
        "attention",
        "queries (N, H * D), cache (KV, D), positions (N), offsets (S + 1), pages (S, P)",
        operands);
  }
  return std::vector<Type>{operands[0]};
}

void attend(const Evaluation& evaluation, std::size_t token, std::size_t sequence,
            std::size_t head) {
  const Tensor& queries = *evaluation.operands[0];
  const Tensor& cache = *evaluation.operands[1];
  const Tensor& pages = *evaluation.operands[4];
  const auto kv_heads = static_cast<std::size_t>(cache.type.shape[0]);
  const auto size = static_cast<std::size_t>(cache.type.shape[1]);
  const auto heads = static_cast<std::size_t>(evaluation.attributes.integer("heads"));
  const std::size_t kv_head = head / (heads / kv_heads);
  const double cap = evaluation.attributes.number("soft_cap");
  const auto position = static_cast<std::int64_t>(evaluation.operands[2]->data[token]);
  const std::int64_t window = evaluation.attributes.integer("window");
  const std::int64_t first = window > 0 ? std::max<std::int64_t>(0, position - window + 1) : 0;
  const double* query = &queries.data[(token * heads + head) * size];
  double* out = &evaluation.results[0].data[(token * heads + head) * size];
  const auto slot_start = [&](std::int64_t j) {
    const auto page_count = static_cast<std::size_t>(pages.type.columns());
    const double page =
        pages.data[sequence * page_count + static_cast<std::size_t>(j / kPageTokens)];
    const auto slot =
        static_cast<std::size_t>(static_cast<std::int64_t>(page) * kPageTokens + j % kPageTokens);
    return (slot * 2 * kv_heads + kv_head) * size;
  };
  std::vector<double> scores;
  for (std::int64_t j = first; j <= position; ++j) {
    double score = 0;
    for (std::size_t d = 0; d < size; ++d) score += query[d] * cache.data[slot_start(j) + d];
    score *= evaluation.attributes.number("scale");
    scores.push_back(cap > 0 ? cap * std::tanh(score / cap) : score);
  }
  const double largest = *std::max_element(scores.begin(), scores.end());
  double sum = 0;
  for (double& score : scores) sum += score = std::exp(score - largest);
  for (std::int64_t j = first; j <= position; ++j) {
    const double weight = scores[static_cast<std::size_t>(j - first)] / sum;
    for (std::size_t d = 0; d < size; ++d) {
      out[d] += weight * cache.data[slot_start(j) + kv_heads * size + d];
    }
  }
}

void evaluate(const Evaluation& evaluation) {
  const std::vector<double>& offsets = evaluation.operands[3]->data;
  const auto heads = static_cast<std::size_t>(evaluation.attributes.integer("heads"));
  for (std::size_t sequence = 0; sequence + 1 < offsets.size(); ++sequence) {
    for (auto token = static_cast<std::size_t>(offsets[sequence]);
         token < static_cast<std::size_t>(offsets[sequence + 1]); ++token) {
      for (std::size_t head = 0; head < heads; ++head) attend(evaluation, token, sequence, head);
    }
  }
}

// Counted for a full page table: the largest work that this shape can mean.
Cost cost(Types operands, Types results, const Attributes&) {
  const double context = static_cast<double>(operands[4].columns() * kPageTokens);
  const double values = 2.0 * context * static_cast<double>(operands[1].elements()) * 2.0;
  return {4.0 * context * static_cast<double>(results[0].elements()),
          values * static_cast<double>(operands[4].rows()) + 2 * total_bytes(results)};
}

// Tested in tests/ops with a cache that is filled first.
std::vector<Example> examples() { return {}; }

}  // namespace

const OpDescriptor& attention_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "attention";
    op.summary =
        "(N, H * D), state, (N), (S + 1), (S, P) -> (N, H * D): softmax(q k) v over the cache";
    op.infer = infer;
    op.evaluate = evaluate;
    op.cost = cost;
    op.examples = examples;
    return op;
  }();
  return kOp;
}

}  // namespace hone::ops

// Gradient of attention among the tokens of a batch (Dao et al., FlashAttention, 2022, appendix B).
// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "ops/registry.h"
#include "ops/sequence_support.h"
#include "ops/support.h"

namespace hone::ops {
namespace {

// operands: those of sequence_attention, its results out (N, H * D) and log_sum (N, H), and d_out
// (N, H * D). With the weights p = e^(score - log_sum): d_value = p d_out, and
// d_score = p (d_out . value - d_out . out).
TypesResult infer(Types operands, const Attributes& attributes) {
  bool fits = operands.size() == 7 && is_sequence_attention(operands, attributes);
  fits = fits && operands[4] == operands[0] && operands[6] == operands[0] &&
         operands[5] == tensor_type({operands[0].rows(), attributes.integer("heads")});
  if (!fits) {
    return ir::type_error("sequence_attention_gradient",
                          "queries (N, H * D), keys and values (N, KV * D), offsets (S + 1), "
                          "out (N, H * D), log_sum (N, H), d_out (N, H * D)",
                          operands);
  }
  return std::vector<Type>{operands[0], operands[1], operands[2]};
}

void evaluate(const Evaluation& evaluation) {
  const SequenceSizes sizes = sequence_sizes(evaluation);
  const auto operand = [&](std::size_t i) { return evaluation.operands[i]->data.data(); };
  const auto result = [&](std::size_t i) { return evaluation.results[i].data.data(); };
  for_each_query(evaluation, [&](const SequenceScores& at) {
    const std::size_t query = sizes.query(at.token, at.head);
    const double log_sum = operand(5)[at.token * sizes.heads + at.head];
    const double* d_out = operand(6) + query;
    double mean = 0;
    for (std::size_t d = 0; d < sizes.head_size; ++d) mean += d_out[d] * operand(4)[query + d];
    for (std::size_t i = 0; i < at.scores.size(); ++i) {
      const std::size_t key = sizes.key(at.first + i, at.head);
      const double weight = std::exp(at.scores[i] - log_sum);
      double along = 0;
      for (std::size_t d = 0; d < sizes.head_size; ++d) along += d_out[d] * operand(2)[key + d];
      const double d_product = weight * (along - mean) * at.slopes[i];
      for (std::size_t d = 0; d < sizes.head_size; ++d) {
        result(0)[query + d] += d_product * operand(1)[key + d];
        result(1)[key + d] += d_product * operand(0)[query + d];
        result(2)[key + d] += weight * d_out[d];
      }
    }
  });
}

Cost cost(Types operands, Types results, const Attributes& attributes) {
  return sequence_cost(operands, results, attributes, 5);
}

std::vector<Example> examples() {
  return sequence_examples(512, [](const Type& queries, const Type&, const Type& log_sum) {
    return std::vector<ExampleOperand>{{queries}, {log_sum, Fill::kPositive}, {queries}};
  });
}

}  // namespace

const OpDescriptor& sequence_attention_gradient_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "sequence_attention_gradient";
    op.summary =
        "the operands and results of sequence_attention, (N, H * D) -> (N, H * D), (N, KV * D), "
        "(N, KV * D): gradients of queries, keys and values";
    op.infer = infer;
    op.evaluate = evaluate;
    op.cost = cost;
    op.examples = examples;
    return op;
  }();
  return kOp;
}

}  // namespace hone::ops

// How attention among the tokens of a batch changes along a direction of its operands.
// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "ops/registry.h"
#include "ops/sequence_support.h"
#include "ops/support.h"

namespace hone::ops {
namespace {

// operands: those of sequence_attention, its results out (N, H * D) and log_sum (N, H), and the
// changes of queries, keys and values. With the weights p = e^(score - log_sum) and the changes s'
// of scores: out' = sum p v' + sum p s' v - (sum p s') out.
TypesResult infer(Types operands, const Attributes& attributes) {
  bool fits = operands.size() == 9 && is_sequence_attention(operands, attributes);
  fits = fits && operands[4] == operands[0] && operands[6] == operands[0] &&
         operands[5] == tensor_type({operands[0].rows(), attributes.integer("heads")}) &&
         operands[7] == operands[1] && operands[8] == operands[1];
  if (!fits) {
    return ir::type_error("sequence_attention_tangent",
                          "queries (N, H * D), keys and values (N, KV * D), offsets (S + 1), "
                          "out (N, H * D), log_sum (N, H), and changes as queries, keys, values",
                          operands);
  }
  return std::vector<Type>{operands[0]};
}

void evaluate(const Evaluation& evaluation) {
  const SequenceSizes sizes = sequence_sizes(evaluation);
  const auto operand = [&](std::size_t i) { return evaluation.operands[i]->data.data(); };
  for_each_query(evaluation, [&](const SequenceScores& at) {
    const std::size_t query = sizes.query(at.token, at.head);
    const double log_sum = operand(5)[at.token * sizes.heads + at.head];
    double* to = &evaluation.results[0].data[query];
    for (std::size_t i = 0; i < at.scores.size(); ++i) {
      const std::size_t key = sizes.key(at.first + i, at.head);
      const double weight = std::exp(at.scores[i] - log_sum);
      double product = 0;
      for (std::size_t d = 0; d < sizes.head_size; ++d) {
        product += operand(6)[query + d] * operand(1)[key + d] +
                   operand(0)[query + d] * operand(7)[key + d];
      }
      const double change = weight * product * at.slopes[i];
      for (std::size_t d = 0; d < sizes.head_size; ++d) {
        to[d] +=
            weight * operand(8)[key + d] + change * (operand(2)[key + d] - operand(4)[query + d]);
      }
    }
  });
}

Cost cost(Types operands, Types results, const Attributes& attributes) {
  return sequence_cost(operands, results, attributes, 5);
}

std::vector<Example> examples() {
  return sequence_examples(512, [](const Type& queries, const Type& keys, const Type& log_sum) {
    return std::vector<ExampleOperand>{
        {queries}, {log_sum, Fill::kPositive}, {queries}, {keys}, {keys}};
  });
}

}  // namespace

const OpDescriptor& sequence_attention_tangent_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "sequence_attention_tangent";
    op.summary =
        "the operands and results of sequence_attention, changes of queries, keys, values -> "
        "(N, H * D): how its first result changes";
    op.infer = infer;
    op.evaluate = evaluate;
    op.cost = cost;
    op.examples = examples;
    return op;
  }();
  return kOp;
}

}  // namespace hone::ops

// Causal attention among the tokens of a batch, without a cache: what training runs (Vaswani et al.
// 2017; grouped heads).
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include "ops/registry.h"
#include "ops/sequence_support.h"
#include "ops/support.h"

namespace hone::ops {
namespace {

// operands: queries (N, H * D), keys and values (N, KV * D), offsets (S + 1): tokens offsets[s] ..
// offsets[s + 1] are a sequence. A token sees those of its sequence up to itself, and with a
// `window` only that many of them. Tokens of no sequence (padding) get zeros. The second result is
// the logarithm of the sum of e^score, with which the gradient makes the weights again (Dao et al.,
// FlashAttention, 2022).
TypesResult infer(Types operands, const Attributes& attributes) {
  if (operands.size() != 4 || !is_sequence_attention(operands, attributes)) {
    return ir::type_error(
        "sequence_attention",
        "queries (N, H * D), keys and values (N, KV * D), offsets (S + 1), D a multiple of 8",
        operands);
  }
  return std::vector<Type>{operands[0],
                           tensor_type({operands[0].rows(), attributes.integer("heads")})};
}

void evaluate(const Evaluation& evaluation) {
  const SequenceSizes sizes = sequence_sizes(evaluation);
  const std::vector<double>& values = evaluation.operands[2]->data;
  for_each_query(evaluation, [&](const SequenceScores& at) {
    const double largest = *std::max_element(at.scores.begin(), at.scores.end());
    double sum = 0;
    for (const double score : at.scores) sum += std::exp(score - largest);
    double* out = &evaluation.results[0].data[sizes.query(at.token, at.head)];
    for (std::size_t i = 0; i < at.scores.size(); ++i) {
      const double weight = std::exp(at.scores[i] - largest) / sum;
      const double* value = &values[sizes.key(at.first + i, at.head)];
      for (std::size_t d = 0; d < sizes.head_size; ++d) out[d] += weight * value[d];
    }
    evaluation.results[1].data[at.token * sizes.heads + at.head] = largest + std::log(sum);
  });
}

Cost cost(Types operands, Types results, const Attributes& attributes) {
  return sequence_cost(operands, results, attributes, 2);
}

std::vector<Example> examples() {
  return sequence_examples(
      256, [](const Type&, const Type&, const Type&) { return std::vector<ExampleOperand>{}; });
}

// The logarithm is for the gradient alone: nothing else may depend on it.
Gradients gradient(const Differentiation& at) {
  Gradients gradients(4, ir::kNoGradient);
  if (at.gradients[0] == ir::kNoGradient) return gradients;
  if (at.wanted[0] == 0 && at.wanted[1] == 0 && at.wanted[2] == 0) return gradients;
  const auto made = at.emit("sequence_attention_gradient",
                            {at.operands[0], at.operands[1], at.operands[2], at.operands[3],
                             at.results[0], at.results[1], at.gradients[0]},
                            at.attributes);
  for (std::size_t i = 0; i < made.size(); ++i) {
    if (at.wanted[i] != 0) gradients[i] = made[i];
  }
  return gradients;
}

Tangents tangent(const Linearization& at) {
  const auto changed = [&](std::size_t i) {
    return at.tangents[i] != ir::kNoTangent
               ? at.tangents[i]
               : emit_one(at, "scale", {at.operands[i]}, {{"factor", 0.0}});
  };
  return {emit_one(at, "sequence_attention_tangent",
                   {at.operands[0], at.operands[1], at.operands[2], at.operands[3], at.results[0],
                    at.results[1], changed(0), changed(1), changed(2)},
                   at.attributes),
          ir::kNoTangent};
}

}  // namespace

const OpDescriptor& sequence_attention_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "sequence_attention";
    op.summary =
        "(N, H * D), (N, KV * D), (N, KV * D), (S + 1) -> (N, H * D), (N, H): softmax(q k) v among "
        "a batch's own tokens, and the logarithm of each softmax's sum";
    op.infer = infer;
    op.evaluate = evaluate;
    op.cost = cost;
    op.examples = examples;
    op.gradient = gradient;
    op.tangent = tangent;
    return op;
  }();
  return kOp;
}

}  // namespace hone::ops

// Cosines and sines of the rotary embedding (Su et al. 2021) for the positions of a batch.
// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "ops/registry.h"
#include "ops/support.h"

namespace hone::ops {
namespace {

// The table has for each token the cosines of `dims` / 2 angles, then their sines. Frequency i is
// scale * theta^(-2 i / dims), divided by factors[i] where a second operand gives them (Llama 3).
TypesResult infer(Types operands, const Attributes& attributes) {
  const std::int64_t dims = attributes.integer("dims");
  bool fits = (operands.size() == 1 || operands.size() == 2) && is_indices(operands[0]) &&
              dims > 0 && dims % 2 == 0 && attributes.number("theta") > 0;
  if (fits && operands.size() == 2) {
    fits = is_dense(operands[1]) && operands[1].shape == Shape{dims / 2};
  }
  if (!fits)
    return ir::type_error("rope_table", "i32 positions (N), perhaps factors (dims / 2)", operands);
  return std::vector<Type>{tensor_type({operands[0].shape[0], dims})};
}

void evaluate(const Evaluation& evaluation) {
  const auto dims = static_cast<std::size_t>(evaluation.attributes.integer("dims"));
  const double theta = evaluation.attributes.number("theta");
  const double scale = evaluation.attributes.number("scale", 1);
  const std::vector<double>& positions = evaluation.operands[0]->data;
  for (std::size_t n = 0; n < positions.size(); ++n) {
    for (std::size_t i = 0; i < dims / 2; ++i) {
      double frequency =
          scale * std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(dims));
      if (evaluation.operands.size() == 2) frequency /= evaluation.operands[1]->data[i];
      const double angle = positions[n] * frequency;
      evaluation.results[0].data[n * dims + i] = std::cos(angle);
      evaluation.results[0].data[n * dims + dims / 2 + i] = std::sin(angle);
    }
  }
}

Cost cost(Types operands, Types results, const Attributes&) {
  return elementwise_cost(operands, results, 40);
}

std::vector<Example> examples() {
  const Type positions = tensor_type({4}, DType::kI32);
  // Angles up to 4,096 radians are made in double precision, then rounded: few ulps remain.
  return {{{{positions, Fill::kIndex, 4096}}, {{"dims", std::int64_t{16}}, {"theta", 10000.0}}, 8},
          {{{positions, Fill::kIndex, 100}, {tensor_type({8}), Fill::kPositive}},
           {{"dims", std::int64_t{16}}, {"theta", 10000.0}, {"scale", 0.5}},
           8}};
}

}  // namespace

const OpDescriptor& rope_table_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "rope_table";
    op.summary = "(N) i32 [, (dims / 2)] -> (N, dims): cosines, then sines, of every angle";
    op.infer = infer;
    op.evaluate = evaluate;
    op.cost = cost;
    op.examples = examples;
    op.row_wise = true;
    return op;
  }();
  return kOp;
}

}  // namespace hone::ops

// The output matmul and the cross-entropy of its logits in one: whole logits never exist.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include "ops/registry.h"
#include "ops/rounding.h"
#include "ops/support.h"

namespace hone::ops {
namespace {

// operands: hidden (M, C), W (V, C), targets (M) i32, weights (M). Results: losses (M); the
// gradient of their sum to hidden (M, C); with the attribute `weight_gradient` that to W (V, C),
// too; with `losses_only` there is no gradient at all, and half the products.
TypesResult infer(Types operands, const Attributes& attributes) {
  const bool fits = operands.size() == 4 && is_activation(operands[0]) && is_weight(operands[1]) &&
                    operands[0].columns() == operands[1].columns() && is_indices(operands[2]) &&
                    operands[2].shape[0] == operands[0].rows() && is_dense(operands[3]) &&
                    operands[3].shape == Shape{operands[0].rows()} &&
                    attributes.number("cap") >= 0 &&
                    (attributes.find("rounding") == nullptr || rounds_to_bf16(attributes));
  if (!fits) {
    return ir::type_error("output_loss", "(M, C), a weight (V, C), targets (M) i32, weights (M)",
                          operands);
  }
  std::vector<Type> results = {tensor_type(operands[3].shape)};
  if (attributes.flag("losses_only")) return results;
  results.push_back(tensor_type(operands[0].shape));
  if (attributes.flag("weight_gradient")) results.push_back(tensor_type(operands[1].shape));
  return results;
}

// The gradient of a row's loss to its logits; returns the loss.
double row_loss(std::vector<double>& logits, std::size_t target, double weight, double cap) {
  std::vector<double> slopes(logits.size(), 1.0);
  if (cap > 0) {
    for (std::size_t v = 0; v < logits.size(); ++v) {
      const double bent = std::tanh(logits[v] / cap);
      logits[v] = cap * bent;
      slopes[v] = 1 - bent * bent;
    }
  }
  const double top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const double logit : logits) sum += std::exp(logit - top);
  const double total = top + std::log(sum);
  const double loss = weight * (total - logits[target]);
  for (std::size_t v = 0; v < logits.size(); ++v) {
    const double probability = std::exp(logits[v] - total) - (v == target ? 1.0 : 0.0);
    logits[v] = weight * probability * slopes[v];
  }
  return loss;
}

void evaluate(const Evaluation& evaluation) {
  const Tensor hidden = rounded(*evaluation.operands[0], evaluation.attributes);
  const Tensor w = rounded(*evaluation.operands[1], evaluation.attributes);
  const auto rows = static_cast<std::size_t>(hidden.type.rows());
  const auto columns = static_cast<std::size_t>(hidden.type.columns());
  const auto words = static_cast<std::size_t>(w.type.rows());
  const double cap = evaluation.attributes.number("cap");
  std::vector<double> logits(words);
  for (std::size_t m = 0; m < rows; ++m) {
    const double weight = evaluation.operands[3]->data[m];
    if (weight == 0) continue;
    const double* x = hidden.data.data() + m * columns;
    for (std::size_t v = 0; v < words; ++v) {
      logits[v] = 0;
      for (std::size_t c = 0; c < columns; ++c) logits[v] += x[c] * w.data[v * columns + c];
    }
    const double wanted =
        std::clamp(evaluation.operands[2]->data[m], 0.0, static_cast<double>(words) - 1);
    evaluation.results[0].data[m] = row_loss(logits, static_cast<std::size_t>(wanted), weight, cap);
    if (evaluation.results.size() < 2) continue;
    double* dx = evaluation.results[1].data.data() + m * columns;
    for (std::size_t v = 0; v < words; ++v) {
      for (std::size_t c = 0; c < columns; ++c) dx[c] += logits[v] * w.data[v * columns + c];
      if (evaluation.results.size() < 3) continue;
      double* dw = evaluation.results[2].data.data() + v * columns;
      for (std::size_t c = 0; c < columns; ++c) dw[c] += logits[v] * x[c];
    }
  }
}

Cost cost(Types operands, Types results, const Attributes&) {
  const double products =
      static_cast<double>(operands[0].rows()) * static_cast<double>(operands[1].elements());
  return {2.0 * products * static_cast<double>(results.size()),
          total_bytes(operands) + total_bytes(results)};
}

// The gradients are results already, of the plain sum of the losses. To hidden, any gradient g of
// the losses scales them row by row. To W it cannot (W's rows sum over all tokens): where W is
// trained, the losses must reach the scalar loss as a plain sum, and whatever weighs tokens goes
// into the operand `weights`.
std::vector<std::int32_t> gradient(const ir::Differentiation& differentiation) {
  const auto& [operands, types, results, gradients, wanted, attributes, emit] = differentiation;
  std::vector<std::int32_t> out(4, ir::kNoGradient);
  if (gradients[0] == ir::kNoGradient || results.size() < 2) return out;
  if (wanted[0] != 0) out[0] = emit("scale_rows", {results[1], gradients[0]}, {})[0];
  if (wanted[1] != 0 && results.size() == 3) out[1] = results[2];
  return out;
}

// Weights of 0 and 1; the bound is of sums over C and V and of an exponential (1024 units for all).
std::vector<Example> examples() {
  const auto example = [](std::int64_t m, std::int64_t c, std::int64_t v, Attributes attributes) {
    return Example{{{tensor_type({m, c})},
                    {tensor_type({v, c})},
                    {tensor_type({m}, DType::kI32), Fill::kIndex, v},
                    {tensor_type({m}), Fill::kIndex, 2}},
                   std::move(attributes),
                   1024};
  };
  // A probability that falls beside the border between two bf16 rounds to the other one: 2^-9 of
  // it.
  Example rounding = example(9, 64, 77, {{"rounding", "bf16"}, {"weight_gradient", true}});
  rounding.tolerance = 0x1p14;
  // The long one goes through several chunks of tokens (passes/lower/output_loss.cpp).
  return {example(5, 64, 130, {}),
          example(800, 32, 40, {{"weight_gradient", true}}),
          example(1, 33, 47, {{"weight_gradient", true}}),
          example(70, 32, 299, {{"cap", 15.0}}),
          rounding,
          example(29, 96, 200, {{"cap", 30.0}, {"weight_gradient", true}}),
          example(70, 32, 299, {{"losses_only", true}})};
}

Tangents tangent(const Linearization& at) {
  // A change of the matrix has no rule: it would need the logits' change, which nobody keeps.
  if (at.results.size() < 2 || at.tangents[1] != ir::kNoTangent) {
    return Tangents(at.results.size(), ir::kNoTangent);
  }
  // The gradient to hidden is there already: its product with the change, summed by row.
  const std::int64_t columns = at.types[0].columns();
  const std::int32_t row =
      emit_one(at, "reshape", {ones(at, columns)}, {{"shape", ir::Integers{1, columns}}});
  const std::int32_t sums =
      emit_one(at, "matmul", {emit_one(at, "multiply", {at.results[1], at.tangents[0]}), row});
  Tangents tangents(at.results.size(), ir::kNoTangent);
  tangents[0] = emit_one(at, "reshape", {sums}, {{"shape", ir::Integers{at.types[0].rows()}}});
  return tangents;
}

}  // namespace

const OpDescriptor& output_loss_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "output_loss";
    op.summary =
        "(M, C), (V, C), (M) i32, (M) -> (M), (M, C)[, (V, C)]: weighted cross-entropies of "
        "hidden times the transposed weight, and the gradients of their sum";
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

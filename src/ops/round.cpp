// Rounds each number to a shorter floating-point type and back.
// SPDX-License-Identifier: Apache-2.0
#include "base/half.h"
#include "ops/registry.h"
#include "ops/support.h"

namespace hone::ops {
namespace {

// The attribute `to`: "bf16" (the default) or "f16".
TypesResult infer(Types operands, const Attributes& attributes) {
  const std::string_view to = attributes.text("to", "bf16");
  if (operands.size() != 1 || !is_dense(operands[0]) || (to != "bf16" && to != "f16")) {
    return ir::type_error("round", "an f32 tensor, to bf16 or f16", operands);
  }
  return std::vector<Type>{operands[0]};
}

void evaluate(const Evaluation& evaluation) {
  const bool half = evaluation.attributes.text("to", "bf16") == "f16";
  map_elements(evaluation, [half](double x) {
    const auto value = static_cast<float>(x);
    return static_cast<double>(half ? f16_to_f32(f32_to_f16(value))
                                    : bf16_to_f32(f32_to_bf16(value)));
  });
}

Cost cost(Types operands, Types results, const Attributes&) {
  return elementwise_cost(operands, results, 2);
}

// Straight through (Bengio, Léonard & Courville 2013): rounding counts as the identity.
Gradients gradient(const Differentiation& at) { return {at.gradients[0]}; }

std::vector<Example> examples() {
  return {{{{tensor_type({3, 67})}}, {}, 1},
          {{{tensor_type({3, 67})}}, {{"to", std::string("f16")}}, 1}};
}

}  // namespace

const OpDescriptor& round_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "round";
    op.summary = "(N, C) -> (N, C): each to the nearest bf16 or f16";
    op.infer = infer;
    op.evaluate = evaluate;
    op.cost = cost;
    op.examples = examples;
    op.gradient = gradient;
    op.straight_through = true;
    op.row_wise = true;
    return op;
  }();
  return kOp;
}

}  // namespace hone::ops

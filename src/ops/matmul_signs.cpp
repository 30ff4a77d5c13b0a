// Rows times a matrix of random signs that is drawn a tile at a time: the change of a product when
// its weight moves along a random direction, in the memory of the product alone.
// SPDX-License-Identifier: Apache-2.0
#include "ops/registry.h"
#include "ops/signs_support.h"
#include "ops/support.h"

namespace hone::ops {
namespace {

// operands: x (N, K), key (4) i32. `tensor`: the weight's number; `rows`: R.
TypesResult infer(Types operands, const Attributes& attributes) {
  const bool fits = operands.size() == 2 && is_dense(operands[0]) &&
                    operands[0].shape.size() == 2 && is_signs_key(operands[1]) &&
                    attributes.integer("rows") > 0;
  if (!fits) return ir::type_error("matmul_signs", "(N, K) f32, (4) i32, and rows", operands);
  return std::vector<Type>{tensor_type({operands[0].rows(), attributes.integer("rows")})};
}

void evaluate(const Evaluation& evaluation) {
  const Tensor& x = *evaluation.operands[0];
  const DirectionKey key =
      signs_key(evaluation.operands[1]->data, evaluation.attributes.integer("tensor"));
  Tensor signs{tensor_type({evaluation.attributes.integer("rows"), x.type.columns()}), {}};
  for (std::int64_t i = 0; i < signs.type.elements(); ++i) signs.data.push_back(sign_of(key, i));
  matmul(x, signs, evaluation.results[0].data);
}

Cost cost(Types operands, Types results, const Attributes&) {
  return {2.0 * static_cast<double>(results[0].elements() * operands[0].columns()),
          total_bytes(operands) + total_bytes(results)};
}

std::vector<Example> examples() {
  const auto example = [](std::int64_t tokens, std::int64_t columns, std::int64_t rows) {
    return Example{{{tensor_type({tokens, columns})}, signs_key_example()},
                   {{"tensor", 3}, {"rows", rows}},
                   256};
  };
  return {example(3, 64, 48), example(1, 96, 33), example(7, 31, 35), example(20, 576, 40),
          example(5, 300, 290)};
}

// Linear in x, and what moves with the weight's direction is nothing else.
Tangents tangent(const Linearization& at) { return linear_tangent(at, "matmul_signs"); }

std::vector<std::int32_t> expand(std::span<const std::int32_t> operands,
                                 std::span<const Type> types, const Attributes& attributes,
                                 const ir::Emit& emit) {
  Attributes shape = attributes;
  shape.set("columns", types[0].columns());
  return emit("matmul", {operands[0], emit("random_signs", {operands[1]}, std::move(shape))[0]},
              {});
}

}  // namespace

const OpDescriptor& matmul_signs_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "matmul_signs";
    op.summary = "(N, K), key (4) i32 -> (N, rows): x times the transposed random_signs";
    op.infer = infer;
    op.evaluate = evaluate;
    op.cost = cost;
    op.examples = examples;
    op.tangent = tangent;
    op.expand = expand;
    op.row_wise = true;
    return op;
  }();
  return kOp;
}

}  // namespace hone::ops

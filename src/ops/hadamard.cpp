// A rotation by a Hadamard matrix, which spreads what stands out over its whole block (Ashkboos et
// al. 2024, QuaRot, section 3; base/hadamard.h has the matrices).
// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "base/hadamard.h"
#include "ops/registry.h"
#include "ops/support.h"

namespace hone::ops {
namespace {

// Attributes: `axis`, "columns": each block of each row becomes x H, the block given or, as 0, the
// largest of base/hadamard.h that divides the columns; "tokens": blocks of at most `block` rows, a
// power of two, become H^T x, what is left over in smaller blocks, so that the whole is orthogonal
// for any number of rows. `transpose`: H transposed in place of H, the inverse.
bool over_tokens(const Attributes& attributes) {
  return attributes.text("axis", "columns") == "tokens";
}

std::int64_t block_of(const Type& type, const Attributes& attributes) {
  const std::int64_t block = attributes.integer("block");
  if (block > 0) return block;
  return over_tokens(attributes) ? 64 : hadamard_block(type.columns());
}

TypesResult infer(Types operands, const Attributes& attributes) {
  bool fits = operands.size() == 1 && is_dense(operands[0]) && operands[0].shape.size() == 2;
  if (fits) {
    const std::int64_t block = block_of(operands[0], attributes);
    fits = over_tokens(attributes) ? hadamard_core(block) == 1
                                   : hadamard_core(block) > 0 && operands[0].columns() % block == 0;
  }
  if (!fits) {
    return ir::type_error("hadamard",
                          "(N, C) f32, C a multiple of a block of size K 2^n, K one of 1, 12, 20; "
                          "over tokens a power of two",
                          operands);
  }
  return std::vector<Type>{operands[0]};
}

void evaluate(const Evaluation& evaluation) {
  const Tensor& x = *evaluation.operands[0];
  const std::int64_t rows = x.type.rows(), columns = x.type.columns();
  const std::int64_t most = block_of(x.type, evaluation.attributes);
  const bool tokens = over_tokens(evaluation.attributes);
  const bool transpose = evaluation.attributes.flag("transpose");
  const std::int64_t along = tokens ? rows : columns, across = tokens ? columns : rows;
  const std::int64_t step = tokens ? columns : 1, other = tokens ? 1 : columns;
  for (std::int64_t first = 0, block = 0; first < along; first += block) {
    block = tokens ? hadamard_token_block(first, rows, most) : most;
    for (std::int64_t line = 0; line < across; ++line) {
      for (std::int64_t j = 0; j < block; ++j) {
        double sum = 0;
        for (std::int64_t i = 0; i < block; ++i) {
          sum += x.data[static_cast<std::size_t>(line * other + (first + i) * step)] *
                 (transpose ? hadamard_element(block, j, i) : hadamard_element(block, i, j));
        }
        evaluation.results[0].data[static_cast<std::size_t>(line * other + (first + j) * step)] =
            sum / std::sqrt(static_cast<double>(block));
      }
    }
  }
}

// log2 of a block additions for each element, twelve for a core of 12.
Cost cost(Types operands, Types results, const Attributes& attributes) {
  const std::int64_t block = block_of(operands[0], attributes);
  const int core = hadamard_core(block);
  const double each = std::log2(static_cast<double>(block / core)) + (core == 1 ? 0 : core) + 1.0;
  return elementwise_cost(operands, results, each);
}

// y = x H is linear, and so is its inverse.
Gradients gradient(const Differentiation& at) {
  Attributes attributes = at.attributes;
  attributes.set("transpose", !at.attributes.flag("transpose"));
  return {emit_one(at, "hadamard", {at.gradients[0]}, std::move(attributes))};
}

std::vector<Example> examples() {
  const Attributes tokens{{"axis", std::string("tokens")}, {"block", std::int64_t{16}}};
  return {{{{tensor_type({3, 64})}}, {}, 16},
          {{{tensor_type({2, 192})}}, {{"transpose", true}}, 32},
          {{{tensor_type({2, 40})}}, {}, 32},
          {{{tensor_type({2, 576})}}, {{"block", std::int64_t{64}}}, 16},
          {{{tensor_type({2, 67})}}, {}, 4},
          {{{tensor_type({2, 12})}}, {{"block", std::int64_t{4}}}, 8},
          {{{tensor_type({45, 19})}}, tokens, 16}};
}

}  // namespace

const OpDescriptor& hadamard_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "hadamard";
    op.summary = "(N, C) -> (N, C): blocks of columns or of tokens times a Hadamard matrix";
    op.infer = infer;
    op.evaluate = evaluate;
    op.cost = cost;
    op.examples = examples;
    op.gradient = gradient;
    return op;
  }();
  return kOp;
}

}  // namespace hone::ops

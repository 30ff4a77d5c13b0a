// Rounds to an integer grid and back: what a quantized network computes with, in f32.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "ops/grid.h"
#include "ops/registry.h"

namespace hone::ops {
namespace {

// Attributes: `bits`, 2 to 16, 0 for none (the identity); `granularity`: one scale for the tensor,
// for each row (the default), or for each block of 32 columns of a row.
TypesResult infer(Types operands, const Attributes& attributes) {
  const std::string_view each = attributes.text("granularity", "row");
  const std::int64_t bits = attributes.integer("bits");
  const bool fits = operands.size() == 1 && is_dense(operands[0]) &&
                    operands[0].shape.size() == 2 && (bits == 0 || (bits >= 2 && bits <= 16)) &&
                    (each == "tensor" || each == "row" || each == "block32");
  if (!fits) {
    return ir::type_error("fake_quantize",
                          "(N, C) f32, a granularity tensor, row or block32, and 0 or 2 to 16 bits",
                          operands);
  }
  return std::vector<Type>{operands[0]};
}

void evaluate(const Evaluation& evaluation) {
  const std::vector<double>& x = evaluation.operands[0]->data;
  std::vector<double>& out = evaluation.results[0].data;
  const std::int64_t bits = evaluation.attributes.integer("bits");
  const std::string_view each = evaluation.attributes.text("granularity", "row");
  if (bits == 0) {
    out = x;
    return;
  }
  const auto columns = static_cast<std::size_t>(evaluation.operands[0]->type.columns());
  const std::size_t row = each == "tensor" ? x.size() : columns;
  const std::size_t group = each == "block32" ? 32 : row;
  for (std::size_t first = 0; first < x.size(); first += row) {
    for (std::size_t begin = first; begin < first + row; begin += group) {
      const std::size_t end = std::min(begin + group, first + row);
      float largest = 0;
      for (std::size_t i = begin; i < end; ++i) {
        largest = std::max(largest, std::abs(static_cast<float>(x[i])));
      }
      const Grid grid = grid_of(largest, bits);
      for (std::size_t i = begin; i < end; ++i) {
        out[i] = static_cast<double>(grid.code(x[i]) * grid.scale);
      }
    }
  }
}

Cost cost(Types operands, Types results, const Attributes&) {
  return elementwise_cost(operands, results, 4);
}

// Straight through (Bengio, Léonard & Courville 2013): rounding counts as the identity.
Gradients gradient(const Differentiation& at) { return {at.gradients[0]}; }

std::vector<Example> examples() {
  std::vector<Example> all;
  for (const char* each : {"tensor", "row", "block32"}) {
    for (const std::int64_t bits : {0, 4, 8}) {
      const Attributes attributes{{"granularity", std::string(each)}, {"bits", bits}};
      all.push_back({{{tensor_type({3, 80})}}, attributes, 1});
    }
  }
  return all;
}

}  // namespace

const OpDescriptor& fake_quantize_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "fake_quantize";
    op.summary = "(N, C) -> (N, C): to the nearest of 2^bits - 1 symmetric levels";
    op.infer = infer;
    op.evaluate = evaluate;
    op.cost = cost;
    op.examples = examples;
    op.gradient = gradient;
    op.straight_through = true;
    return op;
  }();
  return kOp;
}

}  // namespace hone::ops

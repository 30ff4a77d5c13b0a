// Numbers to int8 codes with one scale for all, for each row or for each column: what goes into
// int8_product.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "ops/grid.h"
#include "ops/registry.h"

namespace hone::ops {
namespace {

// Attributes: `granularity`, one of tensor (the default), row and column; `bits`, 2 to 8 (the
// default).
TypesResult infer(Types operands, const Attributes& attributes) {
  const std::string_view each = attributes.text("granularity", "tensor");
  const std::int64_t bits = attributes.integer("bits", 8);
  const bool fits = operands.size() == 1 && is_dense(operands[0]) &&
                    operands[0].shape.size() == 2 && bits >= 2 && bits <= 8 &&
                    (each == "tensor" || each == "row" || each == "column");
  if (!fits) {
    return ir::type_error(
        "int8_codes", "(N, C) f32, a granularity tensor, row or column, and 2 to 8 bits", operands);
  }
  const std::int64_t scales = each == "tensor" ? 1
                              : each == "row"  ? operands[0].rows()
                                               : operands[0].columns();
  return std::vector<Type>{tensor_type(operands[0].shape, DType::kI8), tensor_type({scales})};
}

void evaluate(const Evaluation& evaluation) {
  const Tensor& x = *evaluation.operands[0];
  const std::string_view each = evaluation.attributes.text("granularity", "tensor");
  const auto columns = static_cast<std::size_t>(x.type.columns());
  std::vector<double>& scales = evaluation.results[1].data;
  const auto place = [&](std::size_t i) {
    return each == "tensor" ? 0 : each == "row" ? i / columns : i % columns;
  };
  std::vector<float> largest(scales.size(), 0.0F);
  for (std::size_t i = 0; i < x.data.size(); ++i) {
    float& most = largest[place(i)];
    most = std::max(most, std::abs(static_cast<float>(x.data[i])));
  }
  const std::int64_t bits = evaluation.attributes.integer("bits", 8);
  for (std::size_t i = 0; i < scales.size(); ++i) scales[i] = grid_of(largest[i], bits).scale;
  for (std::size_t i = 0; i < x.data.size(); ++i) {
    evaluation.results[0].data[i] = grid_of(largest[place(i)], bits).code(x.data[i]);
  }
}

Cost cost(Types operands, Types results, const Attributes&) {
  return elementwise_cost(operands, results, 4);
}

std::vector<Example> examples() {
  std::vector<Example> all;
  for (const char* each : {"tensor", "row", "column"}) {
    const Attributes attributes{{"granularity", std::string(each)}};
    all.push_back({{{tensor_type({5, 67})}}, attributes, 1});
  }
  all.push_back({{{tensor_type({40, 48})}}, {{"bits", std::int64_t{4}}}, 1});
  return all;
}

}  // namespace

const OpDescriptor& int8_codes_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "int8_codes";
    op.summary = "(N, C) f32 -> codes (N, C) i8, scales (1, N or C): symmetric, to nearest";
    op.infer = infer;
    op.evaluate = evaluate;
    op.cost = cost;
    op.examples = examples;
    return op;
  }();
  return kOp;
}

}  // namespace hone::ops

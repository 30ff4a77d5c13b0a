// RMS norm whose result goes out as int8 rows, in one walk over the row.
// SPDX-License-Identifier: Apache-2.0
#include "ops/registry.h"
#include "ops/support.h"

namespace hone::ops {
namespace {

TypesResult infer(Types operands, const Attributes& attributes) {
  auto normed = rms_norm_op().infer(operands, attributes);
  if (!normed) return ir::type_error("rms_norm_quantize", "(N, C) and (C), f32", operands);
  return quantize_op().infer(*normed, {});
}

void evaluate(const Evaluation& evaluation) {
  const Tensor& x = *evaluation.operands[0];
  const auto columns = static_cast<std::size_t>(x.type.columns());
  std::vector<double> row(columns);
  for (std::size_t start = 0; start < x.data.size(); start += columns) {
    rms_norm_row(std::span(x.data).subspan(start, columns), evaluation.operands[1]->data,
                 evaluation.attributes.number("epsilon"), row);
    quantize_row(row, std::span(evaluation.results[0].data).subspan(start, columns));
  }
}

Cost cost(Types operands, Types results, const Attributes&) {
  return elementwise_cost(operands, results, 8);
}

std::vector<std::int32_t> expand(std::span<const std::int32_t> operands, std::span<const Type>,
                                 const Attributes& attributes, const ir::Emit& emit) {
  return emit("quantize", emit("rms_norm", {operands[0], operands[1]}, attributes), {});
}

// A code may fall to the other side of a rounding: one step of a block, 1/127 of its largest.
std::vector<Example> examples() {
  return {{{{tensor_type({3, 64})}, {tensor_type({64})}}, {{"epsilon", 1e-5}}, 0x1p17}};
}

}  // namespace

const OpDescriptor& rms_norm_quantize_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "rms_norm_quantize";
    op.summary = "(N, C), (C) -> (N, C) int8 rows: quantize(rms_norm(x, weight))";
    op.infer = infer;
    op.evaluate = evaluate;
    op.cost = cost;
    op.examples = examples;
    op.row_wise = true;
    op.expand = expand;
    return op;
  }();
  return kOp;
}

}  // namespace hone::ops

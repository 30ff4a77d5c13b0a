// Each row's columns go to the place of the row's member, zeros to those of all others: behind it
// one product serves the adapters of a whole population, one for each row.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "ops/registry.h"
#include "ops/support.h"

namespace hone::ops {
namespace {

// operands: x (N, r) or (N, M r), and members (N) i32 in [0, M). Of (N, M r) the member's own r
// columns stay and the others become zero. Attributes: `members` M, `rank` r.
TypesResult infer(Types operands, const Attributes& attributes) {
  const std::int64_t members = attributes.integer("members");
  const std::int64_t rank = attributes.integer("rank");
  const bool fits = operands.size() == 2 && is_dense(operands[0]) &&
                    operands[0].shape.size() == 2 && is_indices(operands[1]) &&
                    operands[1].shape[0] == operands[0].rows() && members > 0 && rank > 0 &&
                    (operands[0].columns() == rank || operands[0].columns() == members * rank);
  if (!fits) {
    return ir::type_error("member_columns",
                          "(N, rank) or (N, members * rank) f32 and i32 members (N)", operands);
  }
  return std::vector<Type>{tensor_type({operands[0].rows(), members * rank})};
}

void evaluate(const Evaluation& evaluation) {
  const Tensor& x = *evaluation.operands[0];
  const auto rank = static_cast<std::size_t>(evaluation.attributes.integer("rank"));
  const auto columns = static_cast<std::size_t>(x.type.columns());
  const auto wide = static_cast<std::size_t>(evaluation.results[0].type.columns());
  for (std::size_t row = 0; row < evaluation.operands[1]->data.size(); ++row) {
    const auto first = static_cast<std::size_t>(evaluation.operands[1]->data[row]) * rank;
    const std::size_t from = row * columns + (columns == wide ? first : 0);
    for (std::size_t i = 0; i < rank; ++i) {
      evaluation.results[0].data[row * wide + first + i] = x.data[from + i];
    }
  }
}

Cost cost(Types operands, Types results, const Attributes&) {
  return {0, total_bytes(operands) + total_bytes(results)};
}

std::vector<Example> examples() {
  const Attributes attributes{{"members", std::int64_t{5}}, {"rank", std::int64_t{3}}};
  const ExampleOperand members{tensor_type({7}, DType::kI32), Fill::kIndex, 5};
  return {{{{tensor_type({7, 3})}, members}, attributes, 0},
          {{{tensor_type({7, 15})}, members}, attributes, 0}};
}

}  // namespace

const OpDescriptor& member_columns_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "member_columns";
    op.summary = "(N, r) or (N, M r), (N) i32 -> (N, M r): each row's part at its member's place";
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

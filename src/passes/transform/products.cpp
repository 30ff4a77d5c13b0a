// SPDX-License-Identifier: Apache-2.0
#include "passes/transform/products.h"

namespace hone::passes {
namespace {

bool is_weight(const ir::Graph& graph, ir::ValueId id) {
  const ir::Operation& made = graph.producer(id);
  return made.is("parameter") || (made.is("multiply") && is_weight(graph, made.operands[0]) &&
                                  graph.producer(made.operands[1]).is("constant"));
}

}  // namespace

Product product_of(const ir::Graph& graph, const ir::Operation& operation, std::int64_t least) {
  const Product product = operation.is("matmul")         ? Product::kForward
                          : operation.is("matmul_back")  ? Product::kInput
                          : operation.is("matmul_outer") ? Product::kWeight
                                                         : Product::kNone;
  if (product == Product::kNone) return product;
  for (const ir::ValueId id : operation.operands) {
    const ir::Type& type = graph.type(id);
    if (type.dtype != DType::kF32 || type.layout != ir::Layout::kRowMajor) return Product::kNone;
  }
  const bool to_weight = product == Product::kWeight;
  if (!to_weight && !is_weight(graph, operation.operands[1])) return Product::kNone;
  const ir::Type& weight = graph.type(to_weight ? operation.results[0] : operation.operands[1]);
  return weight.rows() >= least && weight.columns() >= least ? product : Product::kNone;
}

}  // namespace hone::passes

// Some rows come from a table, the others stay: virtual tokens in front of a prompt.
// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "ops/registry.h"
#include "ops/support.h"

namespace hone::ops {
namespace {

// operands: x (N, C), table (P, C), rows (N) i32: row n becomes table[rows[n]], or stays where
// rows[n] is not below P (any such number means the same).
TypesResult infer(Types operands, const Attributes&) {
  const bool fits = operands.size() == 3 && is_dense(operands[0]) && is_dense(operands[1]) &&
                    operands[0].shape.size() == 2 && operands[1].shape.size() == 2 &&
                    operands[0].columns() == operands[1].columns() && is_indices(operands[2]) &&
                    operands[2].shape[0] == operands[0].rows();
  if (!fits) return ir::type_error("replace_rows", "(N, C), (P, C) and i32 rows (N)", operands);
  return std::vector<Type>{operands[0]};
}

void evaluate(const Evaluation& evaluation) {
  const Tensor& x = *evaluation.operands[0];
  const Tensor& table = *evaluation.operands[1];
  const auto columns = static_cast<std::size_t>(x.type.columns());
  for (std::size_t n = 0; n < static_cast<std::size_t>(x.type.rows()); ++n) {
    const double wanted = evaluation.operands[2]->data[n];
    const bool replaced = wanted >= 0 && wanted < static_cast<double>(table.type.rows());
    const double* from =
        replaced ? &table.data[static_cast<std::size_t>(wanted) * columns] : &x.data[n * columns];
    for (std::size_t c = 0; c < columns; ++c) {
      evaluation.results[0].data[n * columns + c] = from[c];
    }
  }
}

Cost cost(Types, Types results, const Attributes&) { return {0, 2 * total_bytes(results)}; }

// Of x: zeros where rows were replaced (a table of zeros replaces them). Of the table: the rows of
// the gradient added up by index.
std::vector<std::int32_t> gradient(const ir::Differentiation& d) {
  std::vector<std::int32_t> out(3, ir::kNoGradient);
  const std::int64_t rows = d.types[1].rows();
  const std::int64_t columns = d.types[1].columns();
  if (d.wanted[0] != 0) {
    const auto count = static_cast<std::size_t>(rows * columns);
    const auto zeros =
        d.emit("constant", {},
               {{"shape", ir::Integers{rows, columns}}, {"values", ir::Numbers(count, 0.0)}});
    out[0] = d.emit("replace_rows", {d.gradients[0], zeros[0], d.operands[2]}, {})[0];
  }
  if (d.wanted[1] != 0) {
    out[1] = d.emit("scatter_rows", {d.gradients[0], d.operands[2]}, {{"rows", rows}})[0];
  }
  return out;
}

// Linear in both: the tangent of a row is that of where it came from. Operands that do not change
// count as zeros.
std::vector<std::int32_t> tangent(const ir::Linearization& at) {
  const auto zeros = [&](const Type& type) {
    return at.emit("constant", {},
                   {{"shape", ir::Integers{type.rows(), type.columns()}},
                    {"values", ir::Numbers(static_cast<std::size_t>(type.elements()), 0.0)}})[0];
  };
  std::int32_t x = at.tangents[0];
  std::int32_t table = at.tangents[1];
  if (x < 0 && table < 0) return {ir::kNoTangent};
  if (table < 0) table = zeros(at.types[1]);
  if (x < 0) {
    // A multiple of the operand, not a constant as large as it.
    x = at.emit("scale", {at.operands[0]}, {{"factor", 0.0}})[0];
  }
  return {at.emit("replace_rows", {x, table, at.operands[2]}, {})[0]};
}

std::vector<Example> examples() {
  return {{{{tensor_type({5, 32})},
            {tensor_type({2, 32})},
            {tensor_type({5}, DType::kI32), Fill::kIota, 0, {2, 1, 0, 2, 1}}},
           {},
           0}};
}

}  // namespace

const OpDescriptor& replace_rows_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "replace_rows";
    op.summary = "(N, C), (P, C), (N) i32 -> (N, C): row n of x, or row rows[n] of the table";
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

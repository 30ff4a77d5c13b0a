// A product of int8 codes, summed exactly: the three products of a linear layer in training.
// SPDX-License-Identifier: Apache-2.0
#include "ops/grid.h"
#include "ops/registry.h"
#include "ops/support.h"

namespace hone::ops {
namespace {

// The attribute `form` says which operand is transposed: "nt" (N, K), (R, K) -> (N, R), a matmul;
// "nn" (N, R), (R, K) -> (N, K), its gradient to the input; "tn" (N, R), (N, K) -> (R, K), its
// gradient to the weight. Scales lie along what the product keeps, so that they leave the sum: of
// the left operand one for each row of the result, of the right one for each column; or one.
struct Sizes {
  bool known = false;
  bool left_transposed = false, right_transposed = false;
  std::int64_t rows = 0, columns = 0, depth = 0, right_depth = 0;
};

Sizes sizes_of(const Type& a, const Type& b, const Attributes& attributes) {
  const std::string_view form = attributes.text("form", "nt");
  Sizes sizes;
  sizes.known = form == "nt" || form == "nn" || form == "tn";
  sizes.left_transposed = form == "tn";
  sizes.right_transposed = form == "nt";
  sizes.rows = sizes.left_transposed ? a.columns() : a.rows();
  sizes.depth = sizes.left_transposed ? a.rows() : a.columns();
  sizes.columns = sizes.right_transposed ? b.rows() : b.columns();
  sizes.right_depth = sizes.right_transposed ? b.columns() : b.rows();
  return sizes;
}

bool is_codes(const Type& type) {
  return type.dtype == DType::kI8 && type.layout == Layout::kRowMajor && type.shape.size() == 2;
}

bool are_scales(const Type& type, std::int64_t count) {
  return is_dense(type) && type.shape.size() == 1 &&
         (type.elements() == 1 || type.elements() == count);
}

TypesResult infer(Types operands, const Attributes& attributes) {
  bool fits = operands.size() == 4 && is_codes(operands[0]) && is_codes(operands[2]);
  if (fits) {
    const Sizes sizes = sizes_of(operands[0], operands[2], attributes);
    fits = sizes.known && sizes.depth == sizes.right_depth && sizes.depth <= kMostCodesDepth &&
           are_scales(operands[1], sizes.rows) && are_scales(operands[3], sizes.columns);
    if (fits) return std::vector<Type>{tensor_type({sizes.rows, sizes.columns})};
  }
  return ir::type_error("int8_product",
                        "two matrices of i8 codes that the form nt, nn or tn lets multiply over at "
                        "most 131072 terms, each with its scales",
                        operands);
}

void evaluate(const Evaluation& evaluation) {
  const Tensor& a = *evaluation.operands[0];
  const Tensor& b = *evaluation.operands[2];
  const Sizes sizes = sizes_of(a.type, b.type, evaluation.attributes);
  const auto left = [&](std::int64_t row, std::int64_t k) {
    return a.data[static_cast<std::size_t>(sizes.left_transposed ? k * sizes.rows + row
                                                                 : row * sizes.depth + k)];
  };
  const auto right = [&](std::int64_t k, std::int64_t column) {
    return b.data[static_cast<std::size_t>(sizes.right_transposed ? column * sizes.depth + k
                                                                  : k * sizes.columns + column)];
  };
  const auto scale = [](const Tensor& scales, std::int64_t at) {
    return scales.data[scales.data.size() == 1 ? 0 : static_cast<std::size_t>(at)];
  };
  for (std::int64_t row = 0; row < sizes.rows; ++row) {
    for (std::int64_t column = 0; column < sizes.columns; ++column) {
      double sum = 0;  // exact: below 2^31
      for (std::int64_t k = 0; k < sizes.depth; ++k) sum += left(row, k) * right(k, column);
      evaluation.results[0].data[static_cast<std::size_t>(row * sizes.columns + column)] =
          sum * scale(*evaluation.operands[1], row) * scale(*evaluation.operands[3], column);
    }
  }
}

Cost cost(Types operands, Types results, const Attributes& attributes) {
  const Sizes sizes = sizes_of(operands[0], operands[2], attributes);
  return {2.0 * static_cast<double>(results[0].elements() * sizes.depth),
          total_bytes(operands) + total_bytes(results)};
}

// Three roundings: the sum to f32, the product of the scales, their product.
Example example(const char* form, Shape a, Shape b, bool each) {
  const Type left = tensor_type(a, DType::kI8), right = tensor_type(b, DType::kI8);
  const Attributes attributes{{"form", std::string(form)}};
  const Sizes sizes = sizes_of(left, right, attributes);
  const auto codes = [](const Type& type, std::int64_t step) {
    std::vector<double> values;
    for (std::int64_t i = 0; i < type.elements(); ++i) {
      values.push_back(static_cast<double>((i + 1) * step % 255 - 127));
    }
    return values;
  };
  return {{{left, Fill::kIota, 0, codes(left, 7919)},
           {tensor_type({each ? sizes.rows : 1}), Fill::kPositive},
           {right, Fill::kIota, 0, codes(right, 104729)},
           {tensor_type({each ? sizes.columns : 1}), Fill::kPositive}},
          attributes,
          4};
}

std::vector<Example> examples() {
  return {example("nt", {3, 64}, {48, 64}, false), example("nt", {13, 67}, {35, 67}, true),
          example("nn", {7, 33}, {33, 96}, true),  example("nn", {40, 600}, {600, 20}, false),
          example("tn", {37, 50}, {37, 65}, true), example("tn", {1, 5}, {1, 3}, false)};
}

}  // namespace

const OpDescriptor& int8_product_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "int8_product";
    op.summary = "codes, scales, codes, scales -> f32: the forms nt, nn and tn of a product";
    op.infer = infer;
    op.evaluate = evaluate;
    op.cost = cost;
    op.examples = examples;
    return op;
  }();
  return kOp;
}

}  // namespace hone::ops

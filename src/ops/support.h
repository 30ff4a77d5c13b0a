// What the op files share: shape checks, costs, and the reference of element-wise ops.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "ir/op.h"

namespace hone::ops {

using ir::Attributes;
using ir::Cost;
using ir::Evaluation;
using ir::Example;
using ir::ExampleOperand;
using ir::Fill;
using ir::Layout;
using ir::OpDescriptor;
using ir::Shape;
using ir::Tensor;
using ir::tensor_type;
using ir::Type;
using Types = std::span<const Type>;
using TypesResult = Result<std::vector<Type>>;

// A plain f32 tensor of at least one dimension.
bool is_dense(const Type& type);
bool is_indices(const Type& type);     // i32, one dimension
bool is_activation(const Type& type);  // f32 rows, or the same as int8 rows
bool is_weight(const Type& type);      // two dimensions, any dtype, row-major or rows16

// The result has the type of the first operand; operands must be equal and dense.
TypesResult same_type(std::string_view op, Types operands, std::size_t count);

// Bytes of all operands and results, `operations_each` for each element of the first result.
Cost elementwise_cost(Types operands, Types results, double operations_each);
double total_bytes(Types types);

// results[0][i] = f(operands[0][i])
void map_elements(const Evaluation& evaluation, const std::function<double(double)>& f);

// Rounds a row to int8 codes in blocks of 32 as the kernels do (scale = max |x| / 127 in f32, codes
// to nearest, ties to even) and back.
void quantize_row(std::span<const double> row, std::span<double> out);

// out (N, R) = x (N, K) times w (R, K) transposed.
void matmul(const Tensor& x, const Tensor& w, std::span<double> out);
// RMS norm of one row: x / sqrt(mean(x^2) + epsilon) * weight.
void rms_norm_row(std::span<const double> x, std::span<const double> weight, double epsilon,
                  std::span<double> out);
double silu(double x);
double gelu_tanh(double x);

}  // namespace hone::ops

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
using ir::Differentiation;
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
using ir::Linearization;
using Gradients = std::vector<std::int32_t>;
using Tangents = std::vector<std::int32_t>;

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

// results[0][i] = f(operands[0][i], operands[1][i])
void map_pairs(const Evaluation& evaluation, const std::function<double(double, double)>& f);

// For gradient rules: emits an op that has one result.
std::int32_t emit_one(const Differentiation& at, std::string_view op,
                      std::vector<std::int32_t> operands, Attributes attributes = {});

// For tangent rules: the same; kNoTangent where an operand is.
std::int32_t emit_one(const Linearization& at, std::string_view op,
                      std::vector<std::int32_t> operands, Attributes attributes = {});
// The sum of two tangents, either of which may be absent.
std::int32_t add_tangents(const Linearization& at, std::int32_t a, std::int32_t b);
// Of an op that is linear in operand 0 and has no other that changes: itself, on the tangent.
Tangents linear_tangent(const Linearization& at, std::string_view op);
// A constant row of ones.
std::int32_t ones(const Linearization& at, std::int64_t columns);

// Rounds a row to int8 codes in blocks of 32 as the kernels do (scale = max |x| / 127 in f32, codes
// to nearest, ties to even) and back.
void quantize_row(std::span<const double> row, std::span<double> out);

// out (N, R) = x (N, K) times w (R, K) transposed.
void matmul(const Tensor& x, const Tensor& w, std::span<double> out);
// RMS norm of one row: x / sqrt(mean(x^2) + epsilon) * weight.
void rms_norm_row(std::span<const double> x, std::span<const double> weight, double epsilon,
                  std::span<double> out);
// What a norm divides by: inverse = 1 / sqrt(mean((x - mean)^2) + epsilon), where the mean counts
// as 0 unless `centered`.
struct RowMoments {
  double mean = 0;
  double inverse = 0;
};
RowMoments row_moments(std::span<const double> x, bool centered, double epsilon);
double silu(double x);
double silu_derivative(double x);
double gelu_tanh(double x);
double gelu_tanh_derivative(double x);

}  // namespace hone::ops

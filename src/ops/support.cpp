// SPDX-License-Identifier: Apache-2.0
#include "ops/support.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace hone::ops {

bool is_dense(const Type& type) {
  return type.dtype == DType::kF32 && type.layout == Layout::kRowMajor && !type.shape.empty();
}

bool is_indices(const Type& type) {
  return type.dtype == DType::kI32 && type.layout == Layout::kRowMajor && type.shape.size() == 1;
}

bool is_activation(const Type& type) {
  return type.shape.size() == 2 && (is_dense(type) || type.layout == Layout::kInt8Rows);
}

bool is_weight(const Type& type) {
  return type.shape.size() == 2 &&
         (type.layout == Layout::kRowMajor || type.layout == Layout::kRows16);
}

TypesResult same_type(std::string_view op, Types operands, std::size_t count) {
  bool fits = operands.size() == count && is_dense(operands[0]);
  for (const Type& type : operands) fits = fits && type == operands[0];
  if (!fits) return ir::type_error(op, "f32 tensors of one shape", operands);
  return std::vector<Type>{operands[0]};
}

double total_bytes(Types types) {
  double bytes = 0;
  for (const Type& type : types) bytes += static_cast<double>(type.bytes());
  return bytes;
}

Cost elementwise_cost(Types operands, Types results, double operations_each) {
  return {operations_each * static_cast<double>(results[0].elements()),
          total_bytes(operands) + total_bytes(results)};
}

void map_elements(const Evaluation& evaluation, const std::function<double(double)>& f) {
  const std::vector<double>& in = evaluation.operands[0]->data;
  std::transform(in.begin(), in.end(), evaluation.results[0].data.begin(), f);
}

void map_pairs(const Evaluation& evaluation, const std::function<double(double, double)>& f) {
  const std::vector<double>& first = evaluation.operands[0]->data;
  const std::vector<double>& second = evaluation.operands[1]->data;
  std::transform(first.begin(), first.end(), second.begin(), evaluation.results[0].data.begin(), f);
}

std::int32_t emit_one(const Differentiation& at, std::string_view op,
                      std::vector<std::int32_t> operands, Attributes attributes) {
  const auto results = at.emit(op, std::move(operands), std::move(attributes));
  return results.empty() ? ir::kNoGradient : results[0];
}

std::int32_t emit_one(const Linearization& at, std::string_view op,
                      std::vector<std::int32_t> operands, Attributes attributes) {
  if (std::ranges::count(operands, ir::kNoTangent) > 0) return ir::kNoTangent;
  const auto results = at.emit(op, std::move(operands), std::move(attributes));
  return results.empty() ? ir::kNoTangent : results[0];
}

std::int32_t add_tangents(const Linearization& at, std::int32_t a, std::int32_t b) {
  if (a == ir::kNoTangent) return b;
  if (b == ir::kNoTangent) return a;
  return emit_one(at, "add", {a, b});
}

Tangents linear_tangent(const Linearization& at, std::string_view op) {
  std::vector<std::int32_t> operands(at.operands.begin(), at.operands.end());
  operands[0] = at.tangents[0];
  return {emit_one(at, op, std::move(operands), at.attributes)};
}

std::int32_t ones(const Linearization& at, std::int64_t columns) {
  const auto count = static_cast<std::size_t>(columns);
  return emit_one(at, "constant", {},
                  {{"shape", ir::Integers{columns}}, {"values", ir::Numbers(count, 1.0)}});
}

void quantize_row(std::span<const double> row, std::span<double> out) {
  for (std::size_t start = 0; start < row.size(); start += 32) {
    const std::size_t end = std::min(start + 32, row.size());
    float largest = 0;
    for (std::size_t i = start; i < end; ++i) {
      largest = std::max(largest, std::abs(static_cast<float>(row[i])));
    }
    const float scale = largest / 127.0f;
    for (std::size_t i = start; i < end; ++i) {
      const float code = scale > 0 ? std::nearbyint(static_cast<float>(row[i]) / scale) : 0.0f;
      out[i] = static_cast<double>(code) * static_cast<double>(scale);
    }
  }
}

void matmul(const Tensor& x, const Tensor& w, std::span<double> out) {
  const auto tokens = static_cast<std::size_t>(x.type.rows());
  const auto columns = static_cast<std::size_t>(x.type.columns());
  const auto rows = static_cast<std::size_t>(w.type.rows());
  for (std::size_t n = 0; n < tokens; ++n) {
    for (std::size_t r = 0; r < rows; ++r) {
      double sum = 0;
      for (std::size_t k = 0; k < columns; ++k) {
        sum += x.data[n * columns + k] * w.data[r * columns + k];
      }
      out[n * rows + r] = sum;
    }
  }
}

void rms_norm_row(std::span<const double> x, std::span<const double> weight, double epsilon,
                  std::span<double> out) {
  double squares = 0;
  for (const double value : x) squares += value * value;
  const double factor = 1.0 / std::sqrt(squares / static_cast<double>(x.size()) + epsilon);
  for (std::size_t i = 0; i < x.size(); ++i) out[i] = x[i] * factor * weight[i];
}

RowMoments row_moments(std::span<const double> x, bool centered, double epsilon) {
  const auto count = static_cast<double>(x.size());
  RowMoments row;
  if (centered) {
    for (const double value : x) row.mean += value;
    row.mean /= count;
  }
  double squares = 0;
  for (const double value : x) squares += (value - row.mean) * (value - row.mean);
  row.inverse = 1.0 / std::sqrt(squares / count + epsilon);
  return row;
}

double silu(double x) { return x / (1.0 + std::exp(-x)); }

double silu_derivative(double x) {
  const double s = 1.0 / (1.0 + std::exp(-x));
  return s + x * s * (1.0 - s);
}

// The tanh form of GELU (Hendrycks & Gimpel 2016, section 2), which GPT-2 and Gemma use.
double gelu_tanh(double x) {
  const double inner = std::sqrt(2.0 / std::numbers::pi) * (x + 0.044715 * x * x * x);
  return 0.5 * x * (1.0 + std::tanh(inner));
}

double gelu_tanh_derivative(double x) {
  const double slope = std::sqrt(2.0 / std::numbers::pi);
  const double t = std::tanh(slope * (x + 0.044715 * x * x * x));
  return 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * slope * (1.0 + 3 * 0.044715 * x * x);
}

}  // namespace hone::ops

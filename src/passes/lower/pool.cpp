// Lowering of pool_columns and spread_columns.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>

#include "passes/lower/lower.h"
#include "passes/lower/support.h"

namespace hone::passes {
namespace {

constexpr std::size_t kBlock = 32;
constexpr std::size_t kLanes = 8;

// Eight sums side by side, which compilers keep in vectors, and then their sum in pairs: the same
// order on every machine.
float sum_of_block(std::span<const float> x) {
  std::array<float, kLanes> lanes{};
  for (std::size_t i = 0; i < kBlock; i += kLanes) {
    for (std::size_t lane = 0; lane < kLanes; ++lane) lanes[lane] += x[i + lane];
  }
  for (std::size_t width = kLanes / 2; width > 0; width /= 2) {
    for (std::size_t lane = 0; lane < width; ++lane) lanes[lane] += lanes[lane + width];
  }
  return lanes[0];
}

// int8 rows bring the sums of their blocks along.
Result<runtime::StepFunction> take_sums(Lowering& lowering, const ir::Operation& operation) {
  const Int8Span in = int8_span(lowering, operation.operands[0]);
  const RowSpan out = row_span(lowering, operation.results[0]);
  return runtime::StepFunction([=](const runtime::Frame& frame, runtime::Worker worker) {
    const Range rows = rows_of(out.rows, out.place, worker);
    const float* sums = in.read(frame, worker).sums;
    for (std::int64_t row = rows.begin; row < rows.end; ++row) {
      std::copy_n(sums + static_cast<std::size_t>(row) * out.columns, out.columns,
                  out.write(frame, worker, row).data());
    }
  });
}

}  // namespace

Result<runtime::StepFunction> lower_pool(Lowering& lowering, const ir::Operation& operation) {
  if (lowering.type(operation.operands[0]).layout == ir::Layout::kInt8Rows) {
    return take_sums(lowering, operation);
  }
  const RowSpan in = row_span(lowering, operation.operands[0]);
  const RowSpan out = row_span(lowering, operation.results[0]);
  const bool spreads = operation.is("spread_columns");
  return runtime::StepFunction([=](const runtime::Frame& frame, runtime::Worker worker) {
    const Range rows = rows_of(out.rows, out.place, worker);
    for (std::int64_t row = rows.begin; row < rows.end; ++row) {
      const auto x = in.read(frame, worker, row);
      const auto y = out.write(frame, worker, row);
      for (std::size_t i = 0; i < std::min(in.columns, out.columns); ++i) {
        if (spreads) {
          std::ranges::fill(y.subspan(i * kBlock, kBlock), x[i]);
        } else {
          y[i] = sum_of_block(x.subspan(i * kBlock, kBlock));
        }
      }
    }
  });
}

}  // namespace hone::passes

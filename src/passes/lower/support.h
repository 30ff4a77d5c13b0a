// What lowering rules share: rows of a value as spans.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/matmul.h"
#include "passes/lower/lower.h"

namespace hone::passes {

// A value of f32 rows: (rows, columns).
struct RowSpan {
  runtime::Place place;
  std::int64_t rows = 0;
  std::size_t columns = 0;

  std::span<const float> read(const runtime::Frame& frame, runtime::Worker worker,
                              std::int64_t row) const {
    return frame.read_floats(place, worker.thread)
        .subspan(static_cast<std::size_t>(row) * columns, columns);
  }
  std::span<float> write(const runtime::Frame& frame, runtime::Worker worker,
                         std::int64_t row) const {
    return frame.floats(place, worker.thread)
        .subspan(static_cast<std::size_t>(row) * columns, columns);
  }
};

RowSpan row_span(const Lowering& lowering, ir::ValueId id);

// A value of int8 rows: all codes, then all scales, then all sums.
struct Int8Span {
  runtime::Place place;
  std::int64_t rows = 0;
  std::size_t columns = 0;  // rounded up to whole blocks of 32

  struct Row {
    std::span<std::int8_t> codes;
    std::span<float> scales;
    std::span<float> sums;
  };
  Row write(const runtime::Frame& frame, runtime::Worker worker, std::int64_t row) const;
  kernels::Int8Rows read(const runtime::Frame& frame, runtime::Worker worker) const;
};

Int8Span int8_span(const Lowering& lowering, ir::ValueId id);

}  // namespace hone::passes

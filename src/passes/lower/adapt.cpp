// Lowering of what tuning adds to a model beside products: dropout, row norms of adapted weights,
// virtual tokens.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include "kernels/packed.h"
#include "ops/dropout_support.h"
#include "passes/lower/lower.h"
#include "passes/lower/support.h"
#include "quant/codec.h"

namespace hone::passes {
namespace {

using runtime::Frame;
using runtime::Place;
using runtime::StepFunction;
using runtime::Worker;

// One row of a weight as f32, from either layout.
struct RowReader {
  ir::Type type;
  Place place;
  std::optional<kernels::PackedLayout> layout;
  const quant::Codec* codec = nullptr;

  void operator()(const Frame& frame, Worker worker, std::int64_t row, std::span<float> out) const {
    const auto bytes = frame.read(place, worker.thread);
    if (type.layout == ir::Layout::kRows16) {
      kernels::unpack_row(*layout, bytes, row, out);
      return;
    }
    const auto size = static_cast<std::size_t>(dtype_bytes(type.dtype, type.columns()));
    codec->decode(bytes.subspan(static_cast<std::size_t>(row) * size, size), out);
  }
};

}  // namespace

Result<StepFunction> lower_dropout(Lowering& lowering, const ir::Operation& operation) {
  const RowSpan x = row_span(lowering, operation.operands[0]);
  const Place draws = lowering.place(operation.operands[1]);
  const RowSpan out = row_span(lowering, operation.results[0]);
  const double part = operation.attributes.number("part");
  const std::int64_t stream = operation.attributes.integer("stream");
  return StepFunction([=](const Frame& frame, Worker worker) {
    const auto named = frame.read_integers(draws, worker.thread);
    const ops::DropoutDraw draw = ops::dropout_draw(part, stream, named[0], named[1]);
    const Range rows = rows_of(out.rows, out.place, worker);
    for (std::int64_t row = rows.begin; row < rows.end; ++row) {
      const auto from = x.read(frame, worker, row);
      const auto to = out.write(frame, worker, row);
      std::size_t element = static_cast<std::size_t>(row) * x.columns;
      auto block = ops::dropout_block(draw, element / 4);
      for (std::size_t i = 0; i < from.size(); ++i, ++element) {
        if (element % 4 == 0) block = ops::dropout_block(draw, element / 4);
        to[i] = block[element % 4] >= draw.threshold ? from[i] * draw.factor : 0.0F;
      }
    }
  });
}

Result<StepFunction> lower_adapted_row_norms(Lowering& lowering, const ir::Operation& operation) {
  const ir::Type type = lowering.type(operation.operands[0]);
  RowReader reader{type, lowering.place(operation.operands[0]),
                   kernels::packed_layout(type.dtype, type.rows(), type.columns()),
                   quant::find_codec(type.dtype)};
  const bool packed = type.layout == ir::Layout::kRows16;
  if (packed ? !reader.layout : reader.codec == nullptr) {
    return lower_reference(lowering, operation);
  }
  const RowSpan a = row_span(lowering, operation.operands[1]);
  const RowSpan b = row_span(lowering, operation.operands[2]);
  const Place out = lowering.place(operation.results[0]);
  const auto scale = static_cast<float>(operation.attributes.number("scale", 1));
  const auto columns = static_cast<std::size_t>(type.columns());
  lowering.want_scratch(columns * sizeof(float));
  const kernels::KernelTable* k = &lowering.kernels();
  return StepFunction([=](const Frame& frame, Worker worker) {
    auto* memory = reinterpret_cast<float*>(frame.scratch_of(worker.thread).data());
    const std::span<float> values(memory, columns);
    const Range rows = share_of(type.rows(), worker.thread, worker.threads);
    const std::span<float> result = frame.floats(out, worker.thread);
    for (std::int64_t row = rows.begin; row < rows.end; ++row) {
      reader(frame, worker, row, values);
      const auto factors = b.read(frame, worker, row);
      for (std::size_t i = 0; i < factors.size(); ++i) {
        k->axpy(scale * factors[i], a.read(frame, worker, static_cast<std::int64_t>(i)), values);
      }
      double squares = 0;
      for (const float value : values) squares += double{value} * double{value};
      result[static_cast<std::size_t>(row)] =
          squares > 0 ? static_cast<float>(1.0 / std::sqrt(squares)) : 0.0F;
    }
  });
}

Result<StepFunction> lower_replace_rows(Lowering& lowering, const ir::Operation& operation) {
  const RowSpan x = row_span(lowering, operation.operands[0]);
  const RowSpan table = row_span(lowering, operation.operands[1]);
  const Place indices = lowering.place(operation.operands[2]);
  const RowSpan out = row_span(lowering, operation.results[0]);
  return StepFunction([=](const Frame& frame, Worker worker) {
    const auto wanted = frame.read_integers(indices, worker.thread);
    const Range rows = rows_of(out.rows, out.place, worker);
    for (std::int64_t row = rows.begin; row < rows.end; ++row) {
      const std::int64_t index = wanted[static_cast<std::size_t>(row)];
      const auto from = index >= 0 && index < table.rows ? table.read(frame, worker, index)
                                                         : x.read(frame, worker, row);
      std::ranges::copy(from, out.write(frame, worker, row).begin());
    }
  });
}

}  // namespace hone::passes

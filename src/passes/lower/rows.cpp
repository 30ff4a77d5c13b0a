// Lowering of the ops that go row by row: element-wise, norms, quantize, gather, columns.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "kernels/cache_size.h"
#include "kernels/packed.h"
#include "passes/lower/lower.h"
#include "passes/lower/support.h"
#include "quant/codec.h"

namespace hone::passes {
namespace {

using runtime::Frame;
using runtime::Place;
using runtime::StepFunction;
using runtime::Worker;

}  // namespace

Result<StepFunction> lower_unary(Lowering& lowering, const ir::Operation& operation) {
  const RowSpan in = row_span(lowering, operation.operands[0]);
  const RowSpan out = row_span(lowering, operation.results[0]);
  const kernels::KernelTable& k = lowering.kernels();
  const auto each = [in, out](auto kernel) -> StepFunction {
    return [=](const Frame& frame, Worker worker) {
      const Range rows = rows_of(out.rows, out.place, worker);
      for (std::int64_t row = rows.begin; row < rows.end; ++row) {
        kernel(in.read(frame, worker, row), out.write(frame, worker, row));
      }
    };
  };
  const auto factor = static_cast<float>(operation.attributes.number("factor", 1));
  const auto cap = static_cast<float>(operation.attributes.number("cap", 1));
  using In = std::span<const float>;
  using Out = std::span<float>;
  if (operation.is("scale")) return each([=, f = k.scale](In x, Out y) { f(x, factor, y); });
  if (operation.is("tanh_cap")) return each([=, f = k.tanh_cap](In x, Out y) { f(x, cap, y); });
  if (operation.is("softmax")) {
    return each(
        [f = k.softmax, bytes = kernels::private_cache_bytes()](In x, Out y) { f(x, y, bytes); });
  }
  if (operation.is("relu")) return each([f = k.relu](In x, Out y) { f(x, y); });
  return each([f = operation.is("silu") ? k.silu : k.gelu_tanh](In x, Out y) { f(x, y); });
}

Result<StepFunction> lower_binary(Lowering& lowering, const ir::Operation& operation) {
  const RowSpan a = row_span(lowering, operation.operands[0]);
  RowSpan b = row_span(lowering, operation.operands[1]);
  const bool shared = lowering.type(operation.operands[0]) != lowering.type(operation.operands[1]);
  const RowSpan out = row_span(lowering, operation.results[0]);
  const auto kernel = operation.is("add") ? lowering.kernels().add : lowering.kernels().multiply;
  return StepFunction([=](const Frame& frame, Worker worker) {
    const Range rows = rows_of(out.rows, out.place, worker);
    for (std::int64_t row = rows.begin; row < rows.end; ++row) {
      kernel(a.read(frame, worker, row), b.read(frame, worker, shared ? 0 : row),
             out.write(frame, worker, row));
    }
  });
}

Result<StepFunction> lower_norm(Lowering& lowering, const ir::Operation& operation) {
  const RowSpan x = row_span(lowering, operation.operands[0]);
  const RowSpan weight = row_span(lowering, operation.operands[1]);
  const RowSpan third = row_span(lowering, operation.operands.back());  // bias, or residual
  const RowSpan out = row_span(lowering, operation.results[0]);
  const auto epsilon = static_cast<float>(operation.attributes.number("epsilon"));
  const bool layer = operation.is("layer_norm");
  const bool adds = operation.is("rms_norm_add");
  const kernels::KernelTable* k = &lowering.kernels();
  return StepFunction([=](const Frame& frame, Worker worker) {
    const Range rows = rows_of(out.rows, out.place, worker);
    const auto w = weight.read(frame, worker, 0);
    for (std::int64_t row = rows.begin; row < rows.end; ++row) {
      const auto y = out.write(frame, worker, row);
      if (layer) {
        k->layer_norm(x.read(frame, worker, row), w, third.read(frame, worker, 0), epsilon, y);
      } else {
        k->rms_norm(x.read(frame, worker, row), w, epsilon, y);
        if (adds) k->add(third.read(frame, worker, row), y, y);
      }
    }
  });
}

Result<StepFunction> lower_quantize(Lowering& lowering, const ir::Operation& operation) {
  const RowSpan x = row_span(lowering, operation.operands[0]);
  const bool norms = operation.is("rms_norm_quantize");
  const RowSpan weight = row_span(lowering, operation.operands.back());
  const Int8Span out = int8_span(lowering, operation.results[0]);
  const auto epsilon = static_cast<float>(operation.attributes.number("epsilon"));
  const kernels::KernelTable* k = &lowering.kernels();
  return StepFunction([=](const Frame& frame, Worker worker) {
    const Range rows = rows_of(out.rows, out.place, worker);
    for (std::int64_t row = rows.begin; row < rows.end; ++row) {
      const Int8Span::Row to = out.write(frame, worker, row);
      if (norms) {
        k->norm_quantize_row(x.read(frame, worker, row), weight.read(frame, worker, 0), epsilon,
                             to.codes, to.scales, to.sums);
      } else {
        k->quantize_row(x.read(frame, worker, row), to.codes, to.scales, to.sums);
      }
    }
  });
}

Result<StepFunction> lower_columns(Lowering& lowering, const ir::Operation& operation) {
  const RowSpan x = row_span(lowering, operation.operands[0]);
  const RowSpan out = row_span(lowering, operation.results[0]);
  const auto start = static_cast<std::size_t>(operation.attributes.integer("start"));
  return StepFunction([=](const Frame& frame, Worker worker) {
    const Range rows = rows_of(out.rows, out.place, worker);
    for (std::int64_t row = rows.begin; row < rows.end; ++row) {
      const auto y = out.write(frame, worker, row);
      const auto from = x.read(frame, worker, row).subspan(start, y.size());
      std::copy(from.begin(), from.end(), y.begin());
    }
  });
}

// Rows of the table: decoded out of the packed or the file's form, or copied. An index outside of
// the table is the engine's to refuse; here it is taken as the last row rather than read beyond.
Result<StepFunction> lower_gather(Lowering& lowering, const ir::Operation& operation) {
  const ir::Type type = lowering.type(operation.operands[0]);
  const Place table = lowering.place(operation.operands[0]);
  const Place indices = lowering.place(operation.operands[1]);
  const RowSpan out = row_span(lowering, operation.results[0]);
  const auto layout = kernels::packed_layout(type.dtype, type.rows(), type.columns());
  const quant::Codec* codec = quant::find_codec(type.dtype);
  const bool packed = type.layout == ir::Layout::kRows16;
  if ((packed && !layout) || (!packed && codec == nullptr)) {
    return ir::type_error("gather", "a table that can be decoded", std::span(&type, 1));
  }
  const auto row_bytes = static_cast<std::size_t>(dtype_bytes(type.dtype, type.columns()));
  return StepFunction([=](const Frame& frame, Worker worker) {
    const auto wanted = frame.read_integers(indices, worker.thread);
    const Range rows = rows_of(out.rows, out.place, worker);
    for (std::int64_t row = rows.begin; row < rows.end; ++row) {
      const std::int64_t index =
          std::clamp<std::int64_t>(wanted[static_cast<std::size_t>(row)], 0, type.rows() - 1);
      const auto bytes = frame.read(table, worker.thread);
      if (packed) {
        kernels::unpack_row(*layout, bytes, index, out.write(frame, worker, row));
      } else {
        codec->decode(bytes.subspan(static_cast<std::size_t>(index) * row_bytes, row_bytes),
                      out.write(frame, worker, row));
      }
    }
  });
}

}  // namespace hone::passes

// SPDX-License-Identifier: Apache-2.0
#include "passes/lower/support.h"

namespace hone::passes {

RowSpan row_span(const Lowering& lowering, ir::ValueId id) {
  const ir::Type& type = lowering.type(id);
  return {lowering.place(id), type.rows(), static_cast<std::size_t>(type.columns())};
}

Int8Span int8_span(const Lowering& lowering, ir::ValueId id) {
  const ir::Type& type = lowering.type(id);
  return {lowering.place(id), type.rows(),
          static_cast<std::size_t>((type.columns() + 31) / 32 * 32)};
}

Int8Span::Row Int8Span::write(const runtime::Frame& frame, runtime::Worker worker,
                              std::int64_t row) const {
  const std::span<std::byte> bytes = frame.bytes(place, worker.thread);
  const auto all = static_cast<std::size_t>(rows) * columns;
  const auto index = static_cast<std::size_t>(row);
  auto* codes = reinterpret_cast<std::int8_t*>(bytes.data());
  auto* scales = reinterpret_cast<float*>(bytes.data() + all);
  float* sums = scales + all / 32;
  const std::size_t blocks = columns / 32;
  return {{codes + index * columns, columns},
          {scales + index * blocks, blocks},
          {sums + index * blocks, blocks}};
}

kernels::Int8Rows Int8Span::read(const runtime::Frame& frame, runtime::Worker worker) const {
  const std::byte* bytes = frame.bytes(place, worker.thread).data();
  const auto all = static_cast<std::size_t>(rows) * columns;
  const auto* scales = reinterpret_cast<const float*>(bytes + all);
  return {reinterpret_cast<const std::int8_t*>(bytes), scales, scales + all / 32};
}

}  // namespace hone::passes

// Lowering of weight_codes: packed panels are decoded twice, once for the magnitudes of columns and
// once for their codes, so that no f32 copy of a weight is ever held.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cstring>

#include "kernels/packed.h"
#include "ops/grid.h"
#include "passes/lower/lower.h"
#include "passes/lower/support.h"

namespace hone::passes {
namespace {

using runtime::Frame;
using runtime::Place;
using runtime::StepFunction;
using runtime::Worker;

// Columns that are worked on at a time, 16 rows of them: 8 KB, which stay in the first-level cache.
constexpr std::int64_t kColumns = 128;
constexpr std::int64_t kUnit = 32;
using Values = std::array<float, kColumns * kernels::kPanelRows>;

struct WeightCodes {
  ir::Type type;  // of the weight
  kernels::PackedLayout layout;
  Place weight, codes, scales;
  const kernels::KernelTable* kernels = nullptr;

  // Calls use(panel, values (count, 16) of the `count` columns from `first` on).
  template <typename Use>
  void each_panel(std::span<const std::byte> bytes, std::int64_t first, std::int64_t count,
                  Use use) const {
    alignas(64) Values values;
    const std::span<float> part(values.data(),
                                static_cast<std::size_t>(count * kernels::kPanelRows));
    for (std::int64_t panel = 0; panel * kernels::kPanelRows < type.rows(); ++panel) {
      kernels->decode_weights(layout, bytes, panel, first, static_cast<int>(count), part);
      use(panel, part);
    }
  }

  void encode(const Frame& frame, Worker worker, std::int64_t first, std::int64_t count) const {
    const auto bytes = frame.read(weight, worker.thread);
    alignas(64) Values most{};
    const std::span<float> lanes(most.data(),
                                 static_cast<std::size_t>(count * kernels::kPanelRows));
    each_panel(bytes, first, count, [&](std::int64_t, std::span<const float> values) {
      kernels->largest_magnitudes(values, lanes);
    });
    const auto out_scales = frame.floats(scales, worker.thread);
    for (std::int64_t column = 0; column < count; ++column) {
      const auto of_column = lanes.subspan(static_cast<std::size_t>(column * kernels::kPanelRows),
                                           static_cast<std::size_t>(kernels::kPanelRows));
      const ops::Grid grid = ops::grid_of(*std::ranges::max_element(of_column), 8);
      out_scales[static_cast<std::size_t>(first + column)] = grid.scale;
      std::ranges::fill(of_column, grid.inverse);
    }
    auto* out = reinterpret_cast<std::int8_t*>(frame.bytes(codes, worker.thread).data());
    std::array<std::int8_t, Values().size()> block;
    each_panel(bytes, first, count, [&](std::int64_t panel, std::span<const float> values) {
      kernels->int8_codes_each(values, lanes, std::span(block.data(), values.size()));
      const std::int64_t row = panel * kernels::kPanelRows;
      const std::int64_t rows = std::min<std::int64_t>(kernels::kPanelRows, type.rows() - row);
      for (std::int64_t column = 0; column < count; ++column) {
        std::memcpy(out + (first + column) * type.rows() + row,
                    block.data() + column * kernels::kPanelRows, static_cast<std::size_t>(rows));
      }
    });
  }
};

}  // namespace

Result<StepFunction> lower_weight_codes(Lowering& lowering, const ir::Operation& operation) {
  const ir::Type& type = lowering.type(operation.operands[0]);
  const auto layout = kernels::packed_layout(type.dtype, type.rows(), type.columns());
  if (!layout || type.layout != ir::Layout::kRows16) return lower_reference(lowering, operation);
  const WeightCodes codes{type,
                          *layout,
                          lowering.place(operation.operands[0]),
                          lowering.place(operation.results[0]),
                          lowering.place(operation.results[1]),
                          &lowering.kernels()};
  return StepFunction([=](const Frame& frame, Worker worker) {
    const Range mine = share_of(codes.type.columns(), worker.thread, worker.threads, kUnit);
    for (std::int64_t first = mine.begin; first < mine.end; first += kColumns) {
      codes.encode(frame, worker, first, std::min(kColumns, mine.end - first));
    }
  });
}

}  // namespace hone::passes

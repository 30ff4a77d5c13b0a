// Lowering of the rotary embedding and of the writes into the cache.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include "passes/lower/lower.h"
#include "passes/lower/support.h"

namespace hone::passes {
namespace {

using runtime::Frame;
using runtime::Place;
using runtime::StepFunction;
using runtime::Worker;

struct Rotation {
  RowSpan table;
  std::size_t head_size = 0;
  bool interleaved = false;
  const kernels::KernelTable* kernels = nullptr;
  bool inverse = false;  // wants scratch of half a row of the table

  // Turns every head of a row in place by the angles of its token.
  void turn(const Frame& frame, Worker worker, std::int64_t token, std::span<float> row) const {
    const auto angles = table.read(frame, worker, token);
    const auto cosines = angles.first(table.columns / 2);
    auto sines = angles.subspan(table.columns / 2);
    if (inverse) {
      const std::span<float> negated(
          reinterpret_cast<float*>(frame.scratch_of(worker.thread).data()), sines.size());
      kernels->scale(sines, -1.0f, negated);
      sines = negated;
    }
    for (std::size_t start = 0; start < row.size(); start += head_size) {
      kernels->rope(row.subspan(start, head_size), cosines, sines, interleaved);
    }
  }
};

Rotation rotation_of(const Lowering& lowering, const ir::Operation& operation, ir::ValueId table) {
  return {row_span(lowering, table),
          static_cast<std::size_t>(operation.attributes.integer("head_size")),
          operation.attributes.flag("interleaved"), &lowering.kernels()};
}

kernels::CacheLayout layout_of(const Lowering& lowering, ir::ValueId cache) {
  const ir::Type& type = lowering.type(cache);
  return {lowering.options().cache, static_cast<int>(type.shape[0]),
          static_cast<int>(type.shape[1])};
}

// Puts one token into its slot.
struct Store {
  kernels::CacheLayout layout;
  Place cache;
  Place slots;
  const kernels::KernelTable* kernels = nullptr;

  void operator()(const Frame& frame, Worker worker, std::int64_t token, std::span<const float> key,
                  std::span<const float> value) const {
    const runtime::CachePages& pages = frame.caches[cache.at];
    const std::int32_t slot =
        frame.read_integers(slots, worker.thread)[static_cast<std::size_t>(token)];
    const auto page = static_cast<std::size_t>(slot / kernels::kPageTokens);
    kernels->paged_store(
        layout, pages.keys.subspan(page * layout.page_bytes_key(), layout.page_bytes_key()),
        pages.values.subspan(page * layout.page_bytes_value(), layout.page_bytes_value()),
        slot % kernels::kPageTokens, key, value);
  }
};

}  // namespace

// cos and sin in double precision, as the reference: angles reach thousands of radians. The
// frequencies are made once, at compile time, unless factors come as a weight.
Result<StepFunction> lower_rope_table(Lowering& lowering, const ir::Operation& operation) {
  const Place positions = lowering.place(operation.operands[0]);
  const RowSpan out = row_span(lowering, operation.results[0]);
  const bool has_factors = operation.operands.size() == 2;
  const RowSpan factors = row_span(lowering, operation.operands.back());
  const std::size_t half = out.columns / 2;
  std::vector<double> frequencies(half);
  for (std::size_t i = 0; i < half; ++i) {
    frequencies[i] = operation.attributes.number("scale", 1) *
                     std::pow(operation.attributes.number("theta"),
                              -2.0 * static_cast<double>(i) / static_cast<double>(out.columns));
  }
  return StepFunction([=](const Frame& frame, Worker worker) {
    const auto at = frame.read_integers(positions, worker.thread);
    const Range rows = rows_of(out.rows, out.place, worker);
    for (std::int64_t row = rows.begin; row < rows.end; ++row) {
      const auto angles = out.write(frame, worker, row);
      for (std::size_t i = 0; i < half; ++i) {
        double frequency = frequencies[i];
        if (has_factors) frequency /= static_cast<double>(factors.read(frame, worker, 0)[i]);
        const double angle = static_cast<double>(at[static_cast<std::size_t>(row)]) * frequency;
        angles[i] = static_cast<float>(std::cos(angle));
        angles[half + i] = static_cast<float>(std::sin(angle));
      }
    }
  });
}

Result<StepFunction> lower_rope(Lowering& lowering, const ir::Operation& operation) {
  const RowSpan in = row_span(lowering, operation.operands[0]);
  const RowSpan out = row_span(lowering, operation.results[0]);
  Rotation rotation = rotation_of(lowering, operation, operation.operands[1]);
  rotation.inverse = operation.attributes.flag("inverse");
  if (rotation.inverse) lowering.want_scratch(rotation.table.columns / 2 * sizeof(float));
  return StepFunction([=](const Frame& frame, Worker worker) {
    const Range rows = rows_of(out.rows, out.place, worker);
    for (std::int64_t row = rows.begin; row < rows.end; ++row) {
      const auto from = in.read(frame, worker, row);
      const auto to = out.write(frame, worker, row);
      std::copy(from.begin(), from.end(), to.begin());
      rotation.turn(frame, worker, row, to);
    }
  });
}

Result<StepFunction> lower_cache_write(Lowering& lowering, const ir::Operation& operation) {
  const RowSpan keys = row_span(lowering, operation.operands[1]);
  const RowSpan values = row_span(lowering, operation.operands[2]);
  const Store store{layout_of(lowering, operation.operands[0]),
                    lowering.place(operation.operands[0]), lowering.place(operation.operands[3]),
                    &lowering.kernels()};
  return StepFunction([=](const Frame& frame, Worker worker) {
    const Range rows = share_of(keys.rows, worker.thread, worker.threads);
    for (std::int64_t row = rows.begin; row < rows.end; ++row) {
      store(frame, worker, row, keys.read(frame, worker, row), values.read(frame, worker, row));
    }
  });
}

Result<StepFunction> lower_rope_write(Lowering& lowering, const ir::Operation& operation) {
  const RowSpan queries = row_span(lowering, operation.operands[0]);
  const RowSpan keys = row_span(lowering, operation.operands[1]);
  const RowSpan values = row_span(lowering, operation.operands[2]);
  const RowSpan out = row_span(lowering, operation.results[0]);
  const Rotation rotation = rotation_of(lowering, operation, operation.operands[3]);
  const Store store{layout_of(lowering, operation.operands[4]),
                    lowering.place(operation.operands[4]), lowering.place(operation.operands[5]),
                    &lowering.kernels()};
  lowering.want_scratch(keys.columns * sizeof(float));
  return StepFunction([=](const Frame& frame, Worker worker) {
    const Range rows = share_of(out.rows, worker.thread, worker.threads);
    const std::span<float> turned(reinterpret_cast<float*>(frame.scratch_of(worker.thread).data()),
                                  keys.columns);
    for (std::int64_t row = rows.begin; row < rows.end; ++row) {
      const auto query = queries.read(frame, worker, row);
      const auto to = out.write(frame, worker, row);
      std::copy(query.begin(), query.end(), to.begin());
      rotation.turn(frame, worker, row, to);
      const auto key = keys.read(frame, worker, row);
      std::copy(key.begin(), key.end(), turned.begin());
      rotation.turn(frame, worker, row, turned);
      store(frame, worker, row, turned, values.read(frame, worker, row));
    }
  });
}

}  // namespace hone::passes

// Lowering of rotations, roundings and products of codes. The same bits for any number of threads:
// they share rows or columns, a maximum has no order, and the products' sums are exact.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cmath>

#include "base/hadamard.h"
#include "kernels/int8_gemm.h"
#include "ops/grid.h"
#include "passes/lower/lower.h"
#include "passes/lower/support.h"

namespace hone::passes {
namespace {

using runtime::Frame;
using runtime::Place;
using runtime::StepFunction;
using runtime::Worker;

static_assert(ops::kMostCodesDepth <= kernels::kInt8MostDepth);

// A cache line of floats: no two threads write into one.
constexpr std::int64_t kGranule = 16;

// The largest magnitude of all rows: every thread looks at its own, then at what all found.
float largest_of_all(const RowSpan& x, const Frame& frame, Worker worker,
                     const kernels::KernelTable& kernels) {
  const Range rows = share_of(x.rows, worker.thread, worker.threads);
  float largest = 0;
  for (std::int64_t row = rows.begin; row < rows.end; ++row) {
    largest = std::max(largest, kernels.largest_magnitude(x.read(frame, worker, row)));
  }
  const auto shared = [&](int thread) -> float& {
    return *reinterpret_cast<float*>(frame.scratch_of(thread).data());
  };
  shared(worker.thread) = largest;
  frame.wait(worker);
  for (int thread = 0; thread < worker.threads; ++thread) {
    largest = std::max(largest, shared(thread));
  }
  return largest;
}

// Columns whose butterflies are done together, side by side in scratch: of 64 rows 16 KB, which
// stay in the first-level cache, whose sets rows some KB apart would share.
constexpr std::size_t kStrip = 64;

// Butterflies between rows, over this thread's share of the columns; blocks of at most `most` rows.
StepFunction rotate_tokens(const RowSpan& x, const RowSpan& out, std::int64_t most,
                           const kernels::KernelTable* k) {
  return [=](const Frame& frame, Worker worker) {
    const Range share =
        share_of(static_cast<std::int64_t>(x.columns), worker.thread, worker.threads, kGranule);
    const auto end = static_cast<std::size_t>(share.end);
    auto* const strip = reinterpret_cast<float*>(frame.scratch_of(worker.thread).data());
    for (auto first = static_cast<std::size_t>(share.begin); first < end; first += kStrip) {
      const std::size_t count = std::min(kStrip, end - first);
      const auto row_of = [&](std::int64_t row) {
        return std::span(strip + static_cast<std::size_t>(row) * kStrip, count);
      };
      for (std::int64_t begin = 0, block = 0; begin < x.rows; begin += block) {
        block = hadamard_token_block(begin, x.rows, most);
        const float factor = 1.0F / std::sqrt(static_cast<float>(block));
        for (std::int64_t row = 0; row < block; ++row) {
          k->scale(x.read(frame, worker, begin + row).subspan(first, count), factor, row_of(row));
        }
        for (std::int64_t half = block / 2; half > 0; half /= 2) {
          for (std::int64_t row = 0; row < block; ++row) {
            if ((row & half) == 0) k->butterfly(row_of(row), row_of(row + half));
          }
        }
        for (std::int64_t row = 0; row < block; ++row) {
          std::ranges::copy(row_of(row),
                            out.write(frame, worker, begin + row).subspan(first, count).begin());
        }
      }
    }
  };
}

}  // namespace

Result<StepFunction> lower_hadamard(Lowering& lowering, const ir::Operation& operation) {
  const RowSpan x = row_span(lowering, operation.operands[0]);
  const RowSpan out = row_span(lowering, operation.results[0]);
  const std::int64_t block = operation.attributes.integer("block");
  const bool transpose = operation.attributes.flag("transpose");
  const kernels::KernelTable* k = &lowering.kernels();
  if (operation.attributes.text("axis", "columns") == "tokens") {
    const std::int64_t most = block > 0 ? block : 64;
    lowering.want_scratch(static_cast<std::size_t>(most) * kStrip * sizeof(float));
    return rotate_tokens(x, out, most, k);
  }
  const std::int64_t size =
      block > 0 ? block : hadamard_block(static_cast<std::int64_t>(x.columns));
  return StepFunction([=](const Frame& frame, Worker worker) {
    const Range rows = rows_of(out.rows, out.place, worker);
    for (std::int64_t row = rows.begin; row < rows.end; ++row) {
      k->hadamard_row(x.read(frame, worker, row), size, transpose, out.write(frame, worker, row));
    }
  });
}

Result<StepFunction> lower_round(Lowering& lowering, const ir::Operation& operation) {
  const RowSpan x = row_span(lowering, operation.operands[0]);
  const RowSpan out = row_span(lowering, operation.results[0]);
  const kernels::KernelTable& k = lowering.kernels();
  const bool half = operation.attributes.text("to", "bf16") == "f16";
  const auto narrow = half ? k.f32_to_f16_row : k.f32_to_bf16_row;
  const auto widen = half ? k.f16_to_f32_row : k.bf16_to_f32_row;
  lowering.want_scratch(x.columns * sizeof(std::uint16_t));
  return StepFunction([=](const Frame& frame, Worker worker) {
    const Range rows = rows_of(out.rows, out.place, worker);
    const std::span<std::uint16_t> words(
        reinterpret_cast<std::uint16_t*>(frame.scratch_of(worker.thread).data()), x.columns);
    for (std::int64_t row = rows.begin; row < rows.end; ++row) {
      narrow(x.read(frame, worker, row), words);
      widen(words, out.write(frame, worker, row));
    }
  });
}

Result<StepFunction> lower_fake_quantize(Lowering& lowering, const ir::Operation& operation) {
  const RowSpan x = row_span(lowering, operation.operands[0]);
  const RowSpan out = row_span(lowering, operation.results[0]);
  const std::int64_t bits = operation.attributes.integer("bits");
  const std::string_view each = operation.attributes.text("granularity", "row");
  const bool whole = each == "tensor";
  const std::size_t group = each == "block32" ? 32 : x.columns;
  const kernels::KernelTable* k = &lowering.kernels();
  lowering.want_scratch(sizeof(float));
  return StepFunction([=](const Frame& frame, Worker worker) {
    const Range rows = share_of(out.rows, worker.thread, worker.threads);
    ops::Grid grid;
    if (whole && bits > 0) grid = ops::grid_of(largest_of_all(x, frame, worker, *k), bits);
    for (std::int64_t row = rows.begin; row < rows.end; ++row) {
      const auto from = x.read(frame, worker, row);
      const auto to = out.write(frame, worker, row);
      if (bits == 0) {
        std::copy(from.begin(), from.end(), to.begin());
        continue;
      }
      for (std::size_t begin = 0; begin < from.size(); begin += group) {
        const std::size_t count = std::min(group, from.size() - begin);
        const auto part = from.subspan(begin, count);
        if (!whole) grid = ops::grid_of(k->largest_magnitude(part), bits);
        k->round_to_grid(part, grid.inverse, grid.scale, to.subspan(begin, count));
      }
    }
  });
}

namespace {

struct Codes {
  RowSpan x;
  Place codes;
  Place scales;
  std::int64_t bits = 8;
  const kernels::KernelTable* kernels = nullptr;

  std::span<std::int8_t> row_of(const Frame& frame, Worker worker, std::int64_t row) const {
    auto* all = reinterpret_cast<std::int8_t*>(frame.bytes(codes, worker.thread).data());
    return {all + static_cast<std::size_t>(row) * x.columns, x.columns};
  }
  Range rows(Worker worker) const { return share_of(x.rows, worker.thread, worker.threads); }

  void by_tensor(const Frame& frame, Worker worker) const {
    const ops::Grid grid = ops::grid_of(largest_of_all(x, frame, worker, *kernels), bits);
    if (worker.thread == 0) frame.floats(scales, 0)[0] = grid.scale;
    const Range mine = rows(worker);
    for (std::int64_t row = mine.begin; row < mine.end; ++row) {
      kernels->int8_codes(x.read(frame, worker, row), grid.inverse, row_of(frame, worker, row));
    }
  }

  void by_row(const Frame& frame, Worker worker) const {
    const auto out = frame.floats(scales, worker.thread);
    const Range mine = rows(worker);
    for (std::int64_t row = mine.begin; row < mine.end; ++row) {
      const auto from = x.read(frame, worker, row);
      const ops::Grid grid = ops::grid_of(kernels->largest_magnitude(from), bits);
      out[static_cast<std::size_t>(row)] = grid.scale;
      kernels->int8_codes(from, grid.inverse, row_of(frame, worker, row));
    }
  }

  // Each thread finds the magnitudes of its columns, which wait in the scales' place, then encodes
  // its rows by all of them.
  void by_column(const Frame& frame, Worker worker) const {
    const auto all = frame.floats(scales, worker.thread);
    const Range share =
        share_of(static_cast<std::int64_t>(x.columns), worker.thread, worker.threads, kGranule);
    const auto mine = all.subspan(static_cast<std::size_t>(share.begin),
                                  static_cast<std::size_t>(share.end - share.begin));
    std::fill(mine.begin(), mine.end(), 0.0F);
    for (std::int64_t row = 0; row < x.rows && !mine.empty(); ++row) {
      kernels->largest_magnitudes(
          x.read(frame, worker, row).subspan(static_cast<std::size_t>(share.begin), mine.size()),
          mine);
    }
    frame.wait(worker);
    const std::span<float> inverses(
        reinterpret_cast<float*>(frame.scratch_of(worker.thread).data()), x.columns);
    for (std::size_t i = 0; i < inverses.size(); ++i)
      inverses[i] = ops::grid_of(all[i], bits).inverse;
    frame.wait(worker);
    for (float& value : mine) value = ops::grid_of(value, bits).scale;
    const Range encoded = rows(worker);
    for (std::int64_t row = encoded.begin; row < encoded.end; ++row) {
      kernels->int8_codes_each(x.read(frame, worker, row), inverses, row_of(frame, worker, row));
    }
  }
};

kernels::Int8Matrix matrix_of(const Lowering& lowering, ir::ValueId codes, ir::ValueId scales,
                              bool transposed) {
  kernels::Int8Matrix matrix;
  matrix.stride = lowering.type(codes).columns();
  matrix.transposed = transposed;
  matrix.each = lowering.type(scales).elements() > 1;
  return matrix;
}

}  // namespace

Result<StepFunction> lower_int8_codes(Lowering& lowering, const ir::Operation& operation) {
  const Codes codes{row_span(lowering, operation.operands[0]), lowering.place(operation.results[0]),
                    lowering.place(operation.results[1]), operation.attributes.integer("bits", 8),
                    &lowering.kernels()};
  const std::string_view each = operation.attributes.text("granularity", "tensor");
  lowering.want_scratch(codes.x.columns * sizeof(float));
  if (each == "row") return StepFunction([=](const Frame& f, Worker w) { codes.by_row(f, w); });
  if (each == "column") {
    return StepFunction([=](const Frame& f, Worker w) { codes.by_column(f, w); });
  }
  return StepFunction([=](const Frame& f, Worker w) { codes.by_tensor(f, w); });
}

Result<StepFunction> lower_int8_product(Lowering& lowering, const ir::Operation& operation) {
  const std::string_view form = operation.attributes.text("form", "nt");
  const auto& in = operation.operands;
  kernels::Int8GemmTask task;
  task.a = matrix_of(lowering, in[0], in[1], form == "tn");
  task.b = matrix_of(lowering, in[2], in[3], form == "nt");
  const ir::Type& out = lowering.type(operation.results[0]);
  task.rows = out.rows();
  task.columns = out.columns();
  task.depth = form == "tn" ? lowering.type(in[0]).rows() : lowering.type(in[0]).columns();
  task.c_stride = task.columns;
  const std::array<Place, 4> places = {lowering.place(in[0]), lowering.place(in[1]),
                                       lowering.place(in[2]), lowering.place(in[3])};
  const Place result = lowering.place(operation.results[0]);
  lowering.want_scratch(kernels::kInt8GemmScratchBytes);
  const kernels::KernelTable* k = &lowering.kernels();
  return StepFunction([=](const Frame& frame, Worker worker) {
    kernels::Int8GemmTask mine = task;
    const auto codes = [&](const Place& place) {
      return reinterpret_cast<const std::int8_t*>(frame.read(place, worker.thread).data());
    };
    mine.a.codes = codes(places[0]);
    mine.a.scales = frame.read_floats(places[1], worker.thread).data();
    mine.b.codes = codes(places[2]);
    mine.b.scales = frame.read_floats(places[3], worker.thread).data();
    mine.c = frame.floats(result, worker.thread).data();
    mine.scratch = frame.scratch_of(worker.thread);
    kernels::set_int8_share(mine, worker.thread, worker.threads);
    k->int8_gemm(mine);
  });
}

}  // namespace hone::passes

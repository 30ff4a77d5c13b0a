// Lowering of the ops that gradient rules are made of. Sums over rows run in one order whatever the
// number of threads: threads share columns (or rows of a table), never terms.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "passes/lower/lower.h"
#include "passes/lower/support.h"

namespace hone::passes {
namespace {

using runtime::Frame;
using runtime::Place;
using runtime::StepFunction;
using runtime::Worker;
using In = std::span<const float>;
using Out = std::span<float>;

// Rows that are summed apart, then added to the total: the error of a sum grows with the length of
// its chains, here 64 + N / 64 instead of N.
constexpr std::int64_t kRowsEach = 64;

// A cache line of floats: no two threads write into one.
constexpr std::int64_t kGranule = 16;

// Sums over rows of x, of any terms: term(frame, worker, row, first, partial) adds row `row`,
// columns first …, to the partial sum.
template <typename Term>
StepFunction sum_rows(const RowSpan& x, const RowSpan& out, const kernels::KernelTable* k,
                      Term term) {
  return [=](const Frame& frame, Worker worker) {
    const Range share =
        share_of(static_cast<std::int64_t>(x.columns), worker.thread, worker.threads, kGranule);
    const auto first = static_cast<std::size_t>(share.begin);
    const auto count = static_cast<std::size_t>(share.end) - first;
    if (count == 0) return;
    const Out total = out.write(frame, worker, 0).subspan(first, count);
    const Out partial(reinterpret_cast<float*>(frame.scratch_of(worker.thread).data()), count);
    std::fill(total.begin(), total.end(), 0.0f);
    for (std::int64_t begin = 0; begin < x.rows; begin += kRowsEach) {
      std::fill(partial.begin(), partial.end(), 0.0f);
      const std::int64_t end = std::min(x.rows, begin + kRowsEach);
      for (std::int64_t row = begin; row < end; ++row) term(frame, worker, row, first, partial);
      k->add(total, partial, total);
    }
  };
}

}  // namespace

Result<StepFunction> lower_row_gradient(Lowering& lowering, const ir::Operation& operation) {
  const RowSpan x = row_span(lowering, operation.operands[0]);  // or y
  const RowSpan weight = row_span(lowering, operation.operands[1]);
  const RowSpan dy = row_span(lowering, operation.operands.back());
  const RowSpan out = row_span(lowering, operation.results[0]);
  const kernels::KernelTable& k = lowering.kernels();
  const auto epsilon = static_cast<float>(operation.attributes.number("epsilon"));
  const auto cap = static_cast<float>(operation.attributes.number("cap", 1));
  const auto each = [=](auto kernel) -> StepFunction {
    return [=](const Frame& frame, Worker worker) {
      const Range rows = rows_of(out.rows, out.place, worker);
      for (std::int64_t row = rows.begin; row < rows.end; ++row) {
        kernel(x.read(frame, worker, row), dy.read(frame, worker, row),
               out.write(frame, worker, row));
      }
    };
  };
  if (operation.is("silu_gradient")) return each(k.silu_gradient);
  if (operation.is("gelu_gradient")) return each(k.gelu_tanh_gradient);
  if (operation.is("softmax_gradient")) return each(k.softmax_gradient);
  if (operation.is("tanh_cap_gradient")) {
    return each([=, f = k.tanh_cap_gradient](In y, In d, Out to) { f(y, d, cap, to); });
  }
  const auto kernel =
      operation.is("rms_norm_gradient") ? k.rms_norm_gradient : k.layer_norm_gradient;
  return StepFunction([=](const Frame& frame, Worker worker) {
    const Range rows = rows_of(out.rows, out.place, worker);
    for (std::int64_t row = rows.begin; row < rows.end; ++row) {
      kernel(x.read(frame, worker, row), weight.read(frame, worker, 0), dy.read(frame, worker, row),
             epsilon, out.write(frame, worker, row));
    }
  });
}

Result<StepFunction> lower_norm_weight_gradient(Lowering& lowering,
                                                const ir::Operation& operation) {
  const RowSpan x = row_span(lowering, operation.operands[0]);
  const RowSpan dy = row_span(lowering, operation.operands[1]);
  const RowSpan out = row_span(lowering, operation.results[0]);
  const auto epsilon = static_cast<float>(operation.attributes.number("epsilon"));
  const bool centered = operation.is("layer_norm_weight_gradient");
  const kernels::KernelTable* k = &lowering.kernels();
  lowering.want_scratch(x.columns * sizeof(float));
  return sum_rows(
      x, out, k,
      [=](const Frame& frame, Worker worker, std::int64_t row, std::size_t first, Out partial) {
        const In whole = x.read(frame, worker, row);
        k->add_normalized(whole.subspan(first, partial.size()),
                          k->row_moments(whole, centered, epsilon),
                          dy.read(frame, worker, row).subspan(first, partial.size()), partial);
      });
}

Result<StepFunction> lower_column_sum(Lowering& lowering, const ir::Operation& operation) {
  const RowSpan x = row_span(lowering, operation.operands[0]);
  const RowSpan out = row_span(lowering, operation.results[0]);
  const kernels::KernelTable* k = &lowering.kernels();
  lowering.want_scratch(x.columns * sizeof(float));
  return sum_rows(
      x, out, k,
      [=](const Frame& frame, Worker worker, std::int64_t row, std::size_t first, Out partial) {
        k->add(partial, x.read(frame, worker, row).subspan(first, partial.size()), partial);
      });
}

Result<StepFunction> lower_place_columns(Lowering& lowering, const ir::Operation& operation) {
  const RowSpan x = row_span(lowering, operation.operands[0]);
  const RowSpan out = row_span(lowering, operation.results[0]);
  const auto start = static_cast<std::size_t>(operation.attributes.integer("start"));
  return StepFunction([=](const Frame& frame, Worker worker) {
    const Range rows = rows_of(out.rows, out.place, worker);
    for (std::int64_t row = rows.begin; row < rows.end; ++row) {
      const In from = x.read(frame, worker, row);
      const Out to = out.write(frame, worker, row);
      std::fill(to.begin(), to.end(), 0.0f);
      std::copy(from.begin(), from.end(), to.subspan(start).begin());
    }
  });
}

// Threads share the rows of the table; each takes the rows meant for its share in their order. An
// index outside of the table counts as the last row, as in gather.
Result<StepFunction> lower_scatter_rows(Lowering& lowering, const ir::Operation& operation) {
  const RowSpan x = row_span(lowering, operation.operands[0]);
  const Place indices = lowering.place(operation.operands[1]);
  const RowSpan out = row_span(lowering, operation.results[0]);
  const kernels::KernelTable* k = &lowering.kernels();
  return StepFunction([=](const Frame& frame, Worker worker) {
    const Range share = share_of(out.rows, worker.thread, worker.threads);
    const auto wanted = frame.read_integers(indices, worker.thread);
    for (std::int64_t row = share.begin; row < share.end; ++row) {
      const Out to = out.write(frame, worker, row);
      std::fill(to.begin(), to.end(), 0.0f);
    }
    for (std::int64_t row = 0; row < x.rows; ++row) {
      const std::int64_t index = wanted[static_cast<std::size_t>(row)];
      if (index < share.begin || index >= share.end) continue;
      const Out to = out.write(frame, worker, index);
      k->add(to, x.read(frame, worker, row), to);
    }
  });
}

}  // namespace hone::passes

// Lowering of member_columns.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "passes/lower/lower.h"
#include "passes/lower/support.h"

namespace hone::passes {

// A member outside of the population is the engine's to refuse; here it is taken as the last one
// rather than written beyond the row.
Result<runtime::StepFunction> lower_member_columns(Lowering& lowering,
                                                   const ir::Operation& operation) {
  const RowSpan x = row_span(lowering, operation.operands[0]);
  const runtime::Place members = lowering.place(operation.operands[1]);
  const RowSpan out = row_span(lowering, operation.results[0]);
  const std::int64_t most = operation.attributes.integer("members") - 1;
  const auto rank = static_cast<std::size_t>(operation.attributes.integer("rank"));
  return runtime::StepFunction([=](const runtime::Frame& frame, runtime::Worker worker) {
    const auto of_row = frame.read_integers(members, worker.thread);
    const Range rows = rows_of(out.rows, out.place, worker);
    for (std::int64_t row = rows.begin; row < rows.end; ++row) {
      const std::int64_t member =
          std::clamp<std::int64_t>(of_row[static_cast<std::size_t>(row)], 0, most);
      const std::size_t first = static_cast<std::size_t>(member) * rank;
      const auto from = x.read(frame, worker, row);
      const auto to = out.write(frame, worker, row);
      std::ranges::fill(to, 0.0F);
      std::ranges::copy(from.subspan(from.size() == rank ? 0 : first, rank),
                        to.begin() + static_cast<std::ptrdiff_t>(first));
    }
  });
}

}  // namespace hone::passes

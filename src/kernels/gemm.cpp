// How threads share a dense product.
// SPDX-License-Identifier: Apache-2.0
#include "kernels/gemm.h"

#include "base/threads.h"

namespace hone::kernels {

void set_gemm_share(GemmTask& task, int thread, int threads) {
  // Rows of C that are computed together differ between instruction sets; 12 serves all of them.
  constexpr std::int64_t kRowGranule = 12;
  Range rows{0, task.rows};
  Range columns{0, task.columns};
  // By columns nobody decodes B twice; by rows nobody packs a transposed A twice. Few columns do
  // not divide well.
  const std::int64_t column_parts = (task.columns + kGemmGranule - 1) / kGemmGranule;
  const bool by_rows =
      task.a_transposed ? task.rows >= kRowGranule * threads : column_parts < 4 * threads;
  if (by_rows && task.rows > kRowGranule) {
    rows = share_of(task.rows, thread, threads, kRowGranule);
  } else {
    columns = share_of(task.columns, thread, threads, kGemmGranule);
  }
  if (rows.begin >= rows.end || columns.begin >= columns.end) rows = columns = {};
  task.first_row = rows.begin;
  task.row_count = rows.end - rows.begin;
  task.first_column = columns.begin;
  task.column_count = columns.end - columns.begin;
}

bool takes_gemm(DType dtype, std::int64_t rows, std::int64_t columns) {
  return packed_layout(dtype, rows, columns).has_value();
}

}  // namespace hone::kernels

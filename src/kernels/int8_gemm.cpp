// SPDX-License-Identifier: Apache-2.0
#include "kernels/int8_gemm.h"

#include "kernels/gemm.h"

namespace hone::kernels {

void set_int8_share(Int8GemmTask& task, int thread, int threads) {
  GemmTask like;
  like.rows = task.rows;
  like.columns = task.columns;
  like.a_transposed = task.a.transposed;
  set_gemm_share(like, thread, threads);
  task.first_row = like.first_row;
  task.row_count = like.row_count;
  task.first_column = like.first_column;
  task.column_count = like.column_count;
}

}  // namespace hone::kernels

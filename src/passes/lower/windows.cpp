// Lowering of what images need: patches, their sums back, pooling, and the gradient of relu.
// Threads share whole images where rows of the result add up several of the operand.
// SPDX-License-Identifier: Apache-2.0
#include "ops/windows.h"

#include <algorithm>

#include "passes/lower/lower.h"
#include "passes/lower/support.h"

namespace hone::passes {
namespace {

using runtime::Frame;
using runtime::StepFunction;
using runtime::Worker;

std::size_t size(std::int64_t value) { return static_cast<std::size_t>(value); }

// The part of one row of a window that lies inside of the image: pixels first … first + count of
// its kernel, from pixel `from` of the image on.
struct Run {
  std::int64_t first = 0, count = 0, from = 0;
};
Run run_of(const ops::PatchWindows& w, std::int64_t position, std::int64_t kernel_row) {
  const std::int64_t row = position / w.out_width() * w.stride + kernel_row - w.padding;
  if (row < 0 || row >= w.height) return {};
  const std::int64_t left = position % w.out_width() * w.stride - w.padding;
  const std::int64_t first = std::max<std::int64_t>(0, -left);
  const std::int64_t end = std::min(w.kernel, w.width - left);
  return {first, std::max<std::int64_t>(0, end - first), row * w.width + left + first};
}

}  // namespace

Result<StepFunction> lower_relu_gradient(Lowering& lowering, const ir::Operation& operation) {
  const RowSpan x = row_span(lowering, operation.operands[0]);
  const RowSpan dy = row_span(lowering, operation.operands[1]);
  const RowSpan out = row_span(lowering, operation.results[0]);
  return StepFunction([=](const Frame& frame, Worker worker) {
    const Range rows = rows_of(out.rows, out.place, worker);
    for (std::int64_t row = rows.begin; row < rows.end; ++row) {
      const float* from = x.read(frame, worker, row).data();
      const float* change = dy.read(frame, worker, row).data();
      float* to = out.write(frame, worker, row).data();
      for (std::size_t i = 0; i < out.columns; ++i) to[i] = from[i] > 0.0F ? change[i] : 0.0F;
    }
  });
}

Result<StepFunction> lower_patches(Lowering& lowering, const ir::Operation& operation) {
  const RowSpan x = row_span(lowering, operation.operands[0]);
  const RowSpan out = row_span(lowering, operation.results[0]);
  const ops::PatchWindows w = *ops::patch_windows(operation.attributes);
  return StepFunction([=](const Frame& frame, Worker worker) {
    const Range rows = rows_of(out.rows, out.place, worker);
    const float* pixels = frame.read_floats(x.place, worker.thread).data();
    for (std::int64_t row = rows.begin; row < rows.end; ++row) {
      float* to = out.write(frame, worker, row).data();
      const std::int64_t image = row / w.positions() * w.pixels();
      for (std::int64_t k = 0; k < w.kernel; ++k, to += size(w.kernel) * x.columns) {
        const Run run = run_of(w, row % w.positions(), k);
        float* const end = to + size(w.kernel) * x.columns;
        float* const begin = to + size(run.first) * x.columns;
        std::fill(to, begin, 0.0F);
        float* const stop = std::copy_n(pixels + size(image + run.from) * x.columns,
                                        size(run.count) * x.columns, begin);
        std::fill(stop, end, 0.0F);
      }
    }
  });
}

Result<StepFunction> lower_patches_back(Lowering& lowering, const ir::Operation& operation) {
  const RowSpan dy = row_span(lowering, operation.operands[0]);
  const RowSpan out = row_span(lowering, operation.results[0]);
  const ops::PatchWindows w = *ops::patch_windows(operation.attributes);
  return StepFunction([=](const Frame& frame, Worker worker) {
    const Range images = rows_of(out.rows / w.pixels(), out.place, worker);
    float* pixels = frame.floats(out.place, worker.thread).data();
    const std::size_t stride = size(w.pixels()) * out.columns;
    std::fill(pixels + size(images.begin) * stride, pixels + size(images.end) * stride, 0.0F);
    for (std::int64_t row = images.begin * w.positions(); row < images.end * w.positions(); ++row) {
      const float* from = dy.read(frame, worker, row).data();
      const std::int64_t image = row / w.positions() * w.pixels();
      for (std::int64_t k = 0; k < w.kernel; ++k, from += size(w.kernel) * out.columns) {
        const Run run = run_of(w, row % w.positions(), k);
        const float* terms = from + size(run.first) * out.columns;
        float* to = pixels + size(image + run.from) * out.columns;
        for (std::size_t i = 0; i < size(run.count) * out.columns; ++i) to[i] += terms[i];
      }
    }
  });
}

Result<StepFunction> lower_max_pool(Lowering& lowering, const ir::Operation& operation) {
  const RowSpan x = row_span(lowering, operation.operands[0]);
  const RowSpan out = row_span(lowering, operation.results[0]);
  const ops::PoolWindows w = *ops::pool_windows(operation.attributes);
  return StepFunction([=](const Frame& frame, Worker worker) {
    const Range rows = rows_of(out.rows, out.place, worker);
    for (std::int64_t row = rows.begin; row < rows.end; ++row) {
      float* to = out.write(frame, worker, row).data();
      for (std::int64_t tap = 0; tap < w.rows * w.columns; ++tap) {
        const std::int64_t pixel = ops::pixel_of(w, row, tap / w.columns, tap % w.columns);
        const float* from = x.read(frame, worker, pixel).data();
        if (tap == 0) {
          std::copy_n(from, out.columns, to);
        } else {
          for (std::size_t i = 0; i < out.columns; ++i) to[i] = from[i] > to[i] ? from[i] : to[i];
        }
      }
    }
  });
}

// Windows fill the image and share no pixel: each row of dy writes its own window.
Result<StepFunction> lower_max_pool_gradient(Lowering& lowering, const ir::Operation& operation) {
  const RowSpan x = row_span(lowering, operation.operands[0]);
  const RowSpan dy = row_span(lowering, operation.operands[1]);
  const RowSpan out = row_span(lowering, operation.results[0]);
  const ops::PoolWindows w = *ops::pool_windows(operation.attributes);
  return StepFunction([=](const Frame& frame, Worker worker) {
    const Range rows = rows_of(dy.rows, out.place, worker);
    for (std::int64_t row = rows.begin; row < rows.end; ++row) {
      const auto change = dy.read(frame, worker, row);
      for (std::size_t channel = 0; channel < out.columns; ++channel) {
        std::int64_t best = 0;
        float most = 0;
        for (std::int64_t tap = 0; tap < w.rows * w.columns; ++tap) {
          const std::int64_t pixel = ops::pixel_of(w, row, tap / w.columns, tap % w.columns);
          const float value = x.read(frame, worker, pixel)[channel];
          if (tap == 0 || value > most) {
            most = value;
            best = pixel;
          }
          out.write(frame, worker, pixel)[channel] = 0.0F;
        }
        out.write(frame, worker, best)[channel] = change[channel];
      }
    }
  });
}

}  // namespace hone::passes

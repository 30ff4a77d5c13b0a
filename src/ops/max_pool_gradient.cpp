// Gradient of max_pool: dy goes to the first of the largest values under its window.
// SPDX-License-Identifier: Apache-2.0
#include "ops/registry.h"
#include "ops/support.h"
#include "ops/windows.h"

namespace hone::ops {
namespace {

TypesResult infer(Types operands, const Attributes& attributes) {
  const auto windows = pool_windows(attributes);
  const bool fits =
      windows && operands.size() == 2 && is_dense(operands[0]) && is_dense(operands[1]) &&
      operands[0].shape.size() == 2 && operands[0].rows() % windows->pixels() == 0 &&
      operands[1].shape == Shape{operands[0].rows() / windows->pixels() * windows->positions(),
                                 operands[0].columns()};
  if (!fits) {
    return ir::type_error("max_pool_gradient", "(N H W, C) and (N OH OW, C), f32", operands);
  }
  return std::vector<Type>{operands[0]};
}

void evaluate(const Evaluation& evaluation) {
  const PoolWindows w = *pool_windows(evaluation.attributes);
  const std::vector<double>& x = evaluation.operands[0]->data;
  const std::vector<double>& dy = evaluation.operands[1]->data;
  const std::int64_t channels = evaluation.operands[0]->type.columns();
  for (std::int64_t i = 0; i < std::ssize(dy); ++i) {
    evaluation.results[0].data[largest_under(w, x, channels, i)] = dy[static_cast<std::size_t>(i)];
  }
}

Cost cost(Types operands, Types results, const Attributes&) {
  return {static_cast<double>(operands[0].elements()),
          total_bytes(operands) + total_bytes(results)};
}

std::vector<Example> examples() {
  const auto example = [](std::int64_t images, std::int64_t height, std::int64_t width,
                          std::int64_t channels, std::int64_t rows, std::int64_t columns) {
    const std::int64_t pixels = images * height * width;
    return Example{
        {{tensor_type({pixels, channels})}, {tensor_type({pixels / (rows * columns), channels})}},
        {{"height", height}, {"width", width}, {"rows", rows}, {"columns", columns}},
        0};
  };
  return {example(2, 4, 6, 5, 2, 2), example(3, 13, 1, 19, 13, 1), example(1, 3, 4, 8, 3, 2)};
}

}  // namespace

const OpDescriptor& max_pool_gradient_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "max_pool_gradient";
    op.summary =
        "(N H W, C), (N OH OW, C) -> (N H W, C): dy at the first of the largest x under its "
        "window, zeros elsewhere";
    op.infer = infer;
    op.evaluate = evaluate;
    op.cost = cost;
    op.examples = examples;
    return op;
  }();
  return kOp;
}

}  // namespace hone::ops

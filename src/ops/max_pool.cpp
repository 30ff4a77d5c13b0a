// The largest value under every window, channel by channel. A window over all points of a cloud
// (`height` = `rows` = points, `width` = `columns` = 1) is PointNet's (Qi et al. 2017).
// SPDX-License-Identifier: Apache-2.0
#include "ops/registry.h"
#include "ops/support.h"
#include "ops/windows.h"

namespace hone::ops {
namespace {

TypesResult infer(Types operands, const Attributes& attributes) {
  const auto windows = pool_windows(attributes);
  const bool fits = windows && operands.size() == 1 && is_dense(operands[0]) &&
                    operands[0].shape.size() == 2 && operands[0].rows() % windows->pixels() == 0;
  if (!fits) {
    return ir::type_error("max_pool", "(N * height * width, C) f32 and windows that fill an image",
                          operands);
  }
  const std::int64_t images = operands[0].rows() / windows->pixels();
  return std::vector<Type>{tensor_type({images * windows->positions(), operands[0].columns()})};
}

void evaluate(const Evaluation& evaluation) {
  const PoolWindows w = *pool_windows(evaluation.attributes);
  const Tensor& x = *evaluation.operands[0];
  const std::int64_t channels = x.type.columns();
  std::vector<double>& out = evaluation.results[0].data;
  for (std::int64_t i = 0; i < std::ssize(out); ++i) {
    out[static_cast<std::size_t>(i)] = x.data[largest_under(w, x.data, channels, i)];
  }
}

Cost cost(Types operands, Types results, const Attributes&) {
  return {static_cast<double>(operands[0].elements()),
          total_bytes(operands) + total_bytes(results)};
}

// Distinct values: no finite difference changes which is the largest.
std::vector<Example> examples() {
  const auto example = [](std::int64_t images, std::int64_t height, std::int64_t width,
                          std::int64_t channels, std::int64_t rows, std::int64_t columns) {
    ExampleOperand x{tensor_type({images * height * width, channels})};
    const std::int64_t count = x.type.elements();
    for (std::int64_t i = 0; i < count; ++i) {
      x.values.push_back(0.03125 * static_cast<double>(i * 7919 % count - count / 2));
    }
    return Example{
        {x}, {{"height", height}, {"width", width}, {"rows", rows}, {"columns", columns}}, 0};
  };
  return {example(2, 4, 6, 5, 2, 2), example(3, 13, 1, 19, 13, 1), example(1, 3, 4, 8, 3, 2)};
}

Gradients gradient(const Differentiation& at) {
  return {emit_one(at, "max_pool_gradient", {at.operands[0], at.gradients[0]}, at.attributes)};
}

Tangents tangent(const Linearization& at) {
  return {emit_one(at, "max_pool_tangent", {at.operands[0], at.tangents[0]}, at.attributes)};
}

}  // namespace

const OpDescriptor& max_pool_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "max_pool";
    op.summary =
        "(N H W, C) -> (N OH OW, C): the largest under each window of (`rows`, `columns`) pixels "
        "over images of `height` H and `width` W";
    op.infer = infer;
    op.evaluate = evaluate;
    op.cost = cost;
    op.examples = examples;
    op.gradient = gradient;
    op.tangent = tangent;
    return op;
  }();
  return kOp;
}

}  // namespace hone::ops

// The pixels under every window of an image, side by side: convolution is this and a matmul
// (Chellapilla et al. 2006, "High performance convolutional neural networks").
// SPDX-License-Identifier: Apache-2.0
#include "ops/registry.h"
#include "ops/support.h"
#include "ops/windows.h"

namespace hone::ops {
namespace {

TypesResult infer(Types operands, const Attributes& attributes) {
  const auto windows = patch_windows(attributes);
  const bool fits = windows && operands.size() == 1 && is_dense(operands[0]) &&
                    operands[0].shape.size() == 2 && operands[0].rows() % windows->pixels() == 0;
  if (!fits) {
    return ir::type_error("patches", "(N * height * width, C) f32 and windows that fit into it",
                          operands);
  }
  const std::int64_t images = operands[0].rows() / windows->pixels();
  return std::vector<Type>{
      tensor_type({images * windows->positions(), windows->taps() * operands[0].columns()})};
}

void evaluate(const Evaluation& evaluation) {
  const PatchWindows w = *patch_windows(evaluation.attributes);
  const Tensor& x = *evaluation.operands[0];
  const std::int64_t channels = x.type.columns();
  const std::int64_t width = w.taps() * channels;
  std::vector<double>& out = evaluation.results[0].data;
  for (std::int64_t i = 0; i < std::ssize(out); ++i) {
    const std::int64_t pixel = patch_pixel(w, i / width, i % width, channels);
    if (pixel < 0) continue;
    out[static_cast<std::size_t>(i)] =
        x.data[static_cast<std::size_t>(pixel * channels + i % channels)];
  }
}

Cost cost(Types operands, Types results, const Attributes&) {
  return {0, total_bytes(operands) + total_bytes(results)};
}

std::vector<Example> examples() {
  const auto example = [](std::int64_t images, std::int64_t height, std::int64_t width,
                          std::int64_t channels, std::int64_t kernel, std::int64_t stride,
                          std::int64_t padding) {
    return Example{{{tensor_type({images * height * width, channels})}},
                   {{"height", height},
                    {"width", width},
                    {"kernel", kernel},
                    {"stride", stride},
                    {"padding", padding}},
                   0};
  };
  return {example(3, 7, 5, 3, 3, 1, 1), example(2, 9, 8, 1, 5, 1, 2), example(2, 8, 6, 7, 3, 2, 0),
          example(1, 4, 4, 2, 1, 1, 0)};
}

Gradients gradient(const Differentiation& at) {
  Attributes attributes = at.attributes;
  attributes.set("channels", at.types[0].columns());
  return {emit_one(at, "patches_back", {at.gradients[0]}, std::move(attributes))};
}

Tangents tangent(const Linearization& at) { return linear_tangent(at, "patches"); }

}  // namespace

const OpDescriptor& patches_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "patches";
    op.summary =
        "(N H W, C) -> (N OH OW, K K C): the pixels under each window of `kernel` K, `stride`, "
        "`padding` over images of `height` H and `width` W";
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

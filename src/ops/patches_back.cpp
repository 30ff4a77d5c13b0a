// Pixels under windows added back to where they came from: the gradient of `patches`.
// SPDX-License-Identifier: Apache-2.0
#include "ops/registry.h"
#include "ops/support.h"
#include "ops/windows.h"

namespace hone::ops {
namespace {

TypesResult infer(Types operands, const Attributes& attributes) {
  const auto windows = patch_windows(attributes);
  const std::int64_t channels = attributes.integer("channels");
  const bool fits =
      windows && channels > 0 && operands.size() == 1 && is_dense(operands[0]) &&
      operands[0].shape.size() == 2 && operands[0].rows() % windows->positions() == 0 &&
      operands[0].columns() % channels == 0 && operands[0].columns() / channels == windows->taps();
  if (!fits) {
    return ir::type_error("patches_back", "(N OH OW, K K C) f32, its windows and `channels` C",
                          operands);
  }
  const std::int64_t images = operands[0].rows() / windows->positions();
  return std::vector<Type>{tensor_type({images * windows->pixels(), channels})};
}

void evaluate(const Evaluation& evaluation) {
  const PatchWindows w = *patch_windows(evaluation.attributes);
  const std::int64_t channels = evaluation.attributes.integer("channels");
  const std::int64_t width = w.taps() * channels;
  const std::vector<double>& dy = evaluation.operands[0]->data;
  for (std::int64_t i = 0; i < std::ssize(dy); ++i) {
    const std::int64_t pixel = patch_pixel(w, i / width, i % width, channels);
    if (pixel < 0) continue;
    evaluation.results[0].data[static_cast<std::size_t>(pixel * channels + i % channels)] +=
        dy[static_cast<std::size_t>(i)];
  }
}

Cost cost(Types operands, Types results, const Attributes&) {
  return {static_cast<double>(operands[0].elements()),
          total_bytes(operands) + total_bytes(results)};
}

// A pixel is the sum of at most K * K terms.
std::vector<Example> examples() {
  const auto example = [](std::int64_t images, std::int64_t positions, std::int64_t channels,
                          Attributes attributes) {
    const std::int64_t kernel = attributes.integer("kernel");
    attributes.set("channels", channels);
    return Example{{{tensor_type({images * positions, kernel * kernel * channels})}},
                   std::move(attributes),
                   64};
  };
  const auto windows = [](std::int64_t height, std::int64_t width, std::int64_t kernel,
                          std::int64_t stride, std::int64_t padding) {
    return Attributes{{"height", height},
                      {"width", width},
                      {"kernel", kernel},
                      {"stride", stride},
                      {"padding", padding}};
  };
  return {example(3, 35, 3, windows(7, 5, 3, 1, 1)), example(2, 72, 1, windows(9, 8, 5, 1, 2)),
          example(2, 6, 7, windows(8, 6, 3, 2, 0))};
}

Gradients gradient(const Differentiation& at) {
  return {emit_one(at, "patches", {at.gradients[0]}, at.attributes)};
}

Tangents tangent(const Linearization& at) { return linear_tangent(at, "patches_back"); }

}  // namespace

const OpDescriptor& patches_back_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "patches_back";
    op.summary =
        "(N OH OW, K K C) -> (N H W, C): what `patches` took from a pixel, added up at the pixel";
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

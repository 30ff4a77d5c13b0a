// SPDX-License-Identifier: Apache-2.0
#include "tune/vision.h"

#include <cmath>

#include "base/random.h"
#include "ops/registry.h"

namespace hone::tune {
namespace {

using ir::ValueId;

// x times a weight (columns, width of x) and a bias.
ValueId linear(ir::Builder& builder, ValueId x, const std::string& layer, std::int64_t columns) {
  const auto parameter = [&](const char* part, ir::Shape shape) {
    return builder.source("parameter", ir::tensor_type(std::move(shape)), {{"name", layer + part}});
  };
  const std::int64_t width = builder.type(x).columns();
  x = builder.emit("matmul", {x, parameter(".weight", {columns, width})});
  return builder.emit("add", {x, parameter(".bias", {columns})});
}

ValueId reshape(ir::Builder& builder, ValueId x, std::int64_t rows, std::int64_t columns) {
  return builder.emit("reshape", {x}, {{"shape", ir::Integers{rows, columns}}});
}

// Convolution of 5 x 5 with a border of two zeros, ReLU, and the largest of 2 x 2: pixels are rows
// before and after.
ValueId stage(ir::Builder& builder, ValueId x, const std::string& layer, std::int64_t side,
              std::int64_t maps) {
  x = builder.emit("patches", {x},
                   {{"height", side},
                    {"width", side},
                    {"kernel", std::int64_t{5}},
                    {"padding", std::int64_t{2}}});
  x = builder.emit("relu", {linear(builder, x, layer, maps)});
  return builder.emit(
      "max_pool", {x},
      {{"height", side}, {"width", side}, {"rows", std::int64_t{2}}, {"columns", std::int64_t{2}}});
}

ValueId features_of(ir::Builder& builder, const VisionModel& model, std::int64_t examples) {
  return builder.source("input", ir::tensor_type({examples, model.features}),
                        {{"name", std::string("features")}});
}

}  // namespace

VisionModel lenet5() {
  VisionModel model{"lenet5", 784, 10, {"conv1", "conv2", "fc1", "fc2", "fc3"}, nullptr};
  model.logits = [](ir::Builder& builder, ValueId x, std::int64_t examples) {
    x = reshape(builder, x, examples * 784, 1);
    x = stage(builder, x, "conv1", 28, 6);
    x = stage(builder, x, "conv2", 14, 16);
    x = reshape(builder, x, examples, 784);
    x = builder.emit("relu", {linear(builder, x, "fc1", 120)});
    x = builder.emit("relu", {linear(builder, x, "fc2", 84)});
    return linear(builder, x, "fc3", 10);
  };
  return model;
}

VisionModel point_net(std::int64_t points, std::int64_t classes) {
  VisionModel model{"pointnet",
                    3 * points,
                    classes,
                    {"point1", "point2", "point3", "fc1", "fc2", "fc3"},
                    nullptr};
  model.logits = [points, classes](ir::Builder& builder, ValueId x, std::int64_t examples) {
    x = reshape(builder, x, examples * points, 3);
    x = builder.emit("relu", {linear(builder, x, "point1", 32)});
    x = builder.emit("relu", {linear(builder, x, "point2", 64)});
    x = builder.emit("relu", {linear(builder, x, "point3", 128)});
    x = builder.emit("max_pool", {x},
                     {{"height", points},
                      {"width", std::int64_t{1}},
                      {"rows", points},
                      {"columns", std::int64_t{1}}});
    x = builder.emit("relu", {linear(builder, x, "fc1", 64)});
    x = builder.emit("relu", {linear(builder, x, "fc2", 32)});
    return linear(builder, x, "fc3", classes);
  };
  return model;
}

std::vector<std::string> parameters_of(const VisionModel& model, std::int64_t first,
                                       std::int64_t last) {
  std::vector<std::string> names;
  for (std::int64_t layer = first; layer < last; ++layer) {
    names.push_back(model.layers[static_cast<std::size_t>(layer)] + ".weight");
    names.push_back(model.layers[static_cast<std::size_t>(layer)] + ".bias");
  }
  return names;
}

// The loss comes from the op that multiplies by an output matrix: here the identity, since the last
// layer has a bias.
Result<ir::Graph> vision_loss(const VisionModel& model, std::int64_t examples, bool forward_only) {
  ir::Builder builder(model.name, ops::find_op);
  const ValueId x = features_of(builder, model, examples);
  const ValueId logits = model.logits(builder, x, examples);
  ir::Numbers identity(static_cast<std::size_t>(model.classes * model.classes), 0.0);
  for (std::size_t i = 0; i < static_cast<std::size_t>(model.classes); ++i) {
    identity[i * static_cast<std::size_t>(model.classes + 1)] = 1;
  }
  const ValueId same = builder.emit(
      "constant", {},
      {{"shape", ir::Integers{model.classes, model.classes}}, {"values", std::move(identity)}});
  const auto input = [&](const char* name, DType dtype) {
    return builder.source("input", ir::tensor_type({examples}, dtype),
                          {{"name", std::string(name)}});
  };
  ir::Attributes attributes;
  if (forward_only) attributes.set("losses_only", true);
  const auto loss = builder.emit_all(
      "output_loss", {logits, same, input("targets", DType::kI32), input("weights", DType::kF32)},
      std::move(attributes));
  if (!loss.empty()) builder.output(loss[0], "loss");
  return builder.finish();
}

Result<ir::Graph> vision_logits(const VisionModel& model, std::int64_t examples) {
  ir::Builder builder(model.name, ops::find_op);
  const ValueId x = features_of(builder, model, examples);
  builder.output(model.logits(builder, x, examples), "logits");
  return builder.finish();
}

Status initialize(Network& network, const VisionModel& model, std::uint64_t seed) {
  const auto graph = vision_logits(model, 1);
  if (!graph) return graph.error();
  std::uint64_t stream = 0;
  for (const ir::Operation& operation : graph->operations) {
    if (!operation.is("parameter")) continue;
    const std::string name(operation.attributes.text("name"));
    const ir::Type& type = graph->type(operation.results[0]);
    std::vector<float> values(static_cast<std::size_t>(type.elements()));
    if (type.shape.size() == 2) {
      const double gain = name.starts_with(model.layers.back()) ? 1 : 2;
      const auto deviation =
          static_cast<float>(std::sqrt(gain / static_cast<double>(type.columns())));
      Random random(seed, ++stream);
      for (float& value : values) value = deviation * random.normal();
    }
    HONE_RETURN_IF_ERROR(network.add(name, type.shape, std::move(values)));
  }
  return {};
}

}  // namespace hone::tune

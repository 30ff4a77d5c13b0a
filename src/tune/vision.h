// Small networks for images and clouds of points: LeNet-5 and PointNet, as graphs.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/status.h"
#include "ir/graph.h"
#include "tune/network.h"

namespace hone::tune {

struct VisionModel {
  std::string name;
  std::int64_t features = 0;  // floats of an example
  std::int64_t classes = 0;
  std::vector<std::string> layers;  // in order; each has "<layer>.weight" and "<layer>.bias"
  // (examples, features) to (examples, classes).
  std::function<ir::ValueId(ir::Builder& builder, ir::ValueId x, std::int64_t examples)> logits;
};

// LeCun et al. 1998 with ReLU and max pooling: 28 x 28, 6 and 16 maps of 5 x 5 with a border of
// zeros, 784-120-84-10: 107,786 parameters. Layers conv1, conv2, fc1, fc2, fc3.
VisionModel lenet5();

// Qi et al. 2017 without its two transforms and without batch normalization, narrower: each of
// `points` points goes through 3-32-64-128, the maximum over a cloud through 128-64-32-classes.
VisionModel point_net(std::int64_t points, std::int64_t classes);

// Parameters of the layers first … last - 1.
std::vector<std::string> parameters_of(const VisionModel& model, std::int64_t first,
                                       std::int64_t last);

// A graph of `examples` examples: inputs "features", and for the loss "targets" (examples) i32 and
// "weights" (examples); output "loss" (examples), weighted, or "logits".
Result<ir::Graph> vision_loss(const VisionModel& model, std::int64_t examples, bool forward_only);
Result<ir::Graph> vision_logits(const VisionModel& model, std::int64_t examples);

// Matrices normal with deviation sqrt(2 / columns) (He et al. 2015), the last sqrt(1 / columns);
// biases zero.
Status initialize(Network& network, const VisionModel& model, std::uint64_t seed);

}  // namespace hone::tune

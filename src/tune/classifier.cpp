// SPDX-License-Identifier: Apache-2.0
#include "tune/classifier.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/random.h"
#include "ops/registry.h"

namespace hone::tune {
namespace {

constexpr std::int64_t kPortion = 256;  // rows of a forward pass that only predicts

template <typename T>
std::span<const std::byte> bytes_of(const std::vector<T>& values) {
  return std::as_bytes(std::span(values));
}

ir::ValueId parameter(ir::Builder& builder, const std::string& name, ir::Shape shape) {
  return builder.source("parameter", ir::tensor_type(std::move(shape)), {{"name", name}});
}

std::string weight_name(std::int64_t layer) { return fmt::format("layer.{}.weight", layer); }
std::string bias_name(std::int64_t layer) { return fmt::format("layer.{}.bias", layer); }

}  // namespace

std::string Classifier::head_name(std::int64_t head) const {
  return fmt::format("head.{}.weight", head);
}

std::vector<std::string> Classifier::parameters_of(std::span<const std::int64_t> heads) const {
  std::vector<std::string> names = trunk_;
  for (const std::int64_t head : heads) names.push_back(head_name(head));
  return names;
}

Result<Classifier> Classifier::make(ThreadPool& pool, const ClassifierOptions& options,
                                    std::uint64_t seed) {
  Classifier made(pool, options);
  std::uint64_t stream = 0;
  const auto add = [&](const std::string& name, ir::Shape shape, double gain) {
    const std::int64_t columns = shape.back();
    std::vector<float> values(static_cast<std::size_t>(ir::tensor_type(shape).elements()));
    Random random(seed, ++stream);
    const auto deviation = static_cast<float>(std::sqrt(gain / static_cast<double>(columns)));
    for (float& value : values) value = deviation * random.normal();
    return made.network_->add(name, std::move(shape), std::move(values));
  };
  for (std::int64_t layer = 0; layer < options.layers; ++layer) {
    const std::int64_t columns = layer == 0 ? options.features : options.hidden;
    HONE_RETURN_IF_ERROR(add(weight_name(layer), {options.hidden, columns}, 2));
    HONE_RETURN_IF_ERROR(
        made.network_->add(bias_name(layer), {options.hidden},
                           std::vector<float>(static_cast<std::size_t>(options.hidden))));
    made.trunk_.push_back(weight_name(layer));
    made.trunk_.push_back(bias_name(layer));
  }
  const std::int64_t columns = options.layers == 0 ? options.features : options.hidden;
  for (std::int64_t head = 0; head < std::ssize(options.classes); ++head) {
    const std::int64_t classes = options.classes[static_cast<std::size_t>(head)];
    HONE_RETURN_IF_ERROR(add(made.head_name(head), {classes, columns}, 1));
  }
  return made;
}

ir::ValueId Classifier::hidden_of(ir::Builder& builder, std::int64_t rows) const {
  ir::ValueId x = builder.source("input", ir::tensor_type({rows, options_.features}),
                                 {{"name", std::string("features")}});
  for (std::int64_t layer = 0; layer < options_.layers; ++layer) {
    const std::int64_t columns = layer == 0 ? options_.features : options_.hidden;
    x = builder.emit("matmul",
                     {x, parameter(builder, weight_name(layer), {options_.hidden, columns})});
    x = builder.emit("add", {x, parameter(builder, bias_name(layer), {options_.hidden})});
    x = builder.emit("gelu", {x});
  }
  return x;
}

Result<ir::Graph> Classifier::loss_graph(std::span<const std::int64_t> heads, std::int64_t rows,
                                         bool train) const {
  ir::Builder builder("classifier", ops::find_op);
  const ir::ValueId hidden = hidden_of(builder, rows);
  std::vector<ir::ValueId> losses;  // (M) each
  for (const std::int64_t head : heads) {
    const auto input = [&](const char* what, DType dtype) {
      return builder.source("input", ir::tensor_type({rows}, dtype),
                            {{"name", fmt::format("{}.{}", what, head)}});
    };
    const ir::ValueId weight = parameter(
        builder, head_name(head),
        {options_.classes[static_cast<std::size_t>(head)], builder.type(hidden).columns()});
    ir::Attributes attributes;
    if (train) attributes.set("weight_gradient", true);
    const auto made = builder.emit_all(
        "output_loss",
        {hidden, weight, input("targets", DType::kI32), input("weights", DType::kF32)},
        std::move(attributes));
    losses.push_back(made.empty() ? hidden : made[0]);
  }
  ir::ValueId sum = losses.at(0);
  for (std::size_t i = 1; i < losses.size(); ++i) sum = builder.emit("add", {sum, losses[i]});
  builder.output(sum, "loss");
  for (std::size_t i = 0; i < losses.size(); ++i) {
    builder.output(losses[i], fmt::format("loss.{}", heads[i]));
  }
  return builder.finish();
}

Result<ir::Graph> Classifier::logits_graph(std::int64_t head, std::int64_t rows) const {
  ir::Builder builder("classifier", ops::find_op);
  const ir::ValueId hidden = hidden_of(builder, rows);
  const ir::ValueId weight =
      parameter(builder, head_name(head),
                {options_.classes[static_cast<std::size_t>(head)], builder.type(hidden).columns()});
  builder.output(builder.emit("matmul", {hidden, weight}), "logits");
  return builder.finish();
}

Result<Classifier::Outcome> Classifier::run(std::span<const std::int64_t> heads,
                                            const ClassifierBatch& batch, bool train) {
  const auto rows = std::ssize(batch.features) / options_.features;
  const std::string key =
      fmt::format("{} {} of {}", train ? "train" : "loss", rows, fmt::join(heads, ","));
  Network::Program program;
  program.build = [&] { return loss_graph(heads, rows, train); };
  if (train) program.trained = parameters_of(heads);
  std::vector<std::string> names;
  for (const std::int64_t head : heads) {
    names.push_back(fmt::format("targets.{}", head));
    names.push_back(fmt::format("weights.{}", head));
  }
  std::vector<Network::Input> inputs = {{"features", bytes_of(batch.features)}};
  for (std::size_t i = 0; i < batch.labels.size() && i < heads.size(); ++i) {
    inputs.push_back({names[2 * i], bytes_of(batch.labels[i].targets)});
    inputs.push_back({names[2 * i + 1], bytes_of(batch.labels[i].weights)});
  }
  const auto outcome = network_->run(key, program, inputs);
  if (!outcome) return outcome.error();
  Outcome out;
  for (std::size_t i = 0; i < heads.size(); ++i) {
    double sum = 0;
    for (const float loss : outcome->outputs[i + 1]) sum += double{loss};
    out.losses.push_back(sum);
  }
  out.gradients = outcome->gradients;
  return out;
}

Result<std::vector<std::int32_t>> Classifier::predict(std::int64_t head,
                                                      std::span<const float> features) {
  const auto rows = std::ssize(features) / options_.features;
  Network::Program program;
  program.build = [&] { return logits_graph(head, rows); };
  const std::vector<Network::Input> inputs = {{"features", std::as_bytes(features)}};
  const auto outcome = network_->run(fmt::format("predict {} of {}", rows, head), program, inputs);
  if (!outcome) return outcome.error();
  const std::span<const float> logits = outcome->outputs[0];
  const auto classes = static_cast<std::size_t>(options_.classes[static_cast<std::size_t>(head)]);
  std::vector<std::int32_t> out;
  for (std::size_t row = 0; row < logits.size(); row += classes) {
    const auto part = logits.subspan(row, classes);
    out.push_back(static_cast<std::int32_t>(std::ranges::max_element(part) - part.begin()));
  }
  return out;
}

Result<double> Classifier::accuracy(std::int64_t head, std::span<const float> features,
                                    std::span<const std::int32_t> targets) {
  std::int64_t right = 0;
  for (std::size_t begin = 0; begin < targets.size(); begin += kPortion) {
    const std::size_t count = std::min<std::size_t>(kPortion, targets.size() - begin);
    const auto width = static_cast<std::size_t>(options_.features);
    const auto said = predict(head, features.subspan(begin * width, count * width));
    if (!said) return said.error();
    for (std::size_t i = 0; i < count; ++i) right += (*said)[i] == targets[begin + i] ? 1 : 0;
  }
  return targets.empty() ? 0 : static_cast<double>(right) / static_cast<double>(targets.size());
}

}  // namespace hone::tune

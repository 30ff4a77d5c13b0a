// SPDX-License-Identifier: Apache-2.0
#include "tune/network.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/random.h"
#include "ops/registry.h"
#include "optim/clip.h"
#include "passes/lower/lower.h"
#include "passes/pass.h"
#include "passes/transform/gradient.h"

namespace hone::tune {
namespace {

std::int64_t elements_of(const ir::Shape& shape) { return ir::tensor_type(shape).elements(); }

optim::Shape2 as_matrix(const ir::Shape& shape) {
  if (shape.size() < 2) return {1, shape.empty() ? 1 : shape[0]};
  return {shape[0], elements_of(shape) / shape[0]};
}

// FNV-1a: a stream of random numbers for each name, whatever the order of the parameters.
std::uint64_t stream_of(std::string_view name) {
  std::uint64_t hash = 0xcbf29ce484222325;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return hash;
}

}  // namespace

Status Network::add(const std::string& name, ir::Shape shape, std::vector<float> values) {
  if (elements_of(shape) != static_cast<std::int64_t>(values.size()) || values.empty()) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("the values do not fill the parameter '{}'", name),
                 "",
                 fmt::format("{} values", values.size()),
                 fmt::format("{}", elements_of(shape)),
                 ""};
  }
  // Programs keep where a parameter's values are.
  const auto found = parameters_.find(name);
  if (found != parameters_.end() && found->second->shape == shape) {
    std::ranges::copy(values, found->second->values.begin());
    return {};
  }
  if (found != parameters_.end()) programs_.clear();
  auto parameter = std::make_unique<Parameter>();
  parameter->shape = std::move(shape);
  parameter->values = std::move(values);
  const auto bytes = std::as_writable_bytes(std::span(parameter->values));
  parameter->weight = {bytes, bytes};
  if (!parameters_.contains(name)) names_.push_back(name);
  parameters_[name] = std::move(parameter);
  return {};
}

Status Network::add_all(const ir::Graph& graph, std::uint64_t seed, double deviation) {
  for (const ir::Operation& operation : graph.operations) {
    if (!operation.is("parameter")) continue;
    const std::string name(operation.attributes.text("name"));
    if (parameters_.contains(name)) continue;
    const ir::Shape& shape = graph.type(operation.results[0]).shape;
    std::vector<float> values(static_cast<std::size_t>(elements_of(shape)));
    if (shape.size() == 1) {
      const bool norm = name.find("norm") != std::string::npos && !name.ends_with("bias");
      std::ranges::fill(values, norm ? 1.0F : 0.0F);
    } else {
      Random random(seed, stream_of(name));
      for (float& value : values) value = random.normal() * static_cast<float>(deviation);
    }
    HONE_RETURN_IF_ERROR(add(name, shape, std::move(values)));
  }
  return {};
}

std::span<float> Network::values(std::string_view name) {
  const auto found = parameters_.find(name);
  return found == parameters_.end() ? std::span<float>() : std::span(found->second->values);
}

const ir::Shape& Network::shape(std::string_view name) const {
  return parameters_.find(name)->second->shape;
}

std::int64_t Network::parameters() const {
  std::int64_t count = 0;
  for (const auto& [name, each] : parameters_) count += std::ssize(each->values);
  return count;
}

Result<Network::Bound*> Network::bound(const std::string& key, const Program& program) {
  const auto found = programs_.find(key);
  if (found != programs_.end()) return &found->second;
  auto graph = program.build();
  if (!graph) return graph.error();
  Bound made;
  made.outputs = graph->outputs.size();
  if (program.before) graph = program.before(*graph);
  if (graph && !program.trained.empty()) {
    graph = passes::find_pass("cse")->run(*graph);
    if (graph) graph = passes::add_gradients(*graph, {"loss", program.trained});
  }
  if (graph && program.after) graph = program.after(*graph);
  for (const char* name : {"cse", "dce"}) {
    if (graph) graph = passes::find_pass(name)->run(*graph);
  }
  if (!graph) return graph.error();
  passes::LowerOptions options;
  options.threads = pool_.size();
  options.reference = program.reference;
  auto lowered = passes::lower(*graph, options);
  if (!lowered) return lowered.error();
  ++compiled_;
  made.program = *std::move(lowered);
  for (const runtime::Slot& slot : made.program.parameters) {
    const auto parameter = parameters_.find(slot.name);
    if (parameter == parameters_.end() || parameter->second->shape != slot.type.shape) {
      return Error{ErrorCode::kNotFound,
                   fmt::format("the network has no parameter '{}' of this shape", slot.name),
                   "",
                   "",
                   slot.type.text(),
                   ""};
    }
    made.weights.push_back(&parameter->second->weight);
  }
  return &programs_.emplace(key, std::move(made)).first->second;
}

Result<Network::Outcome> Network::run(const std::string& key, const Program& program,
                                      std::span<const Input> inputs) {
  auto found = bound(key, program);
  if (!found) return found.error();
  Bound& made = **found;
  std::vector<std::span<const std::byte>> bytes;
  for (const runtime::Slot& slot : made.program.inputs) {
    const auto input = std::ranges::find(inputs, std::string_view(slot.name), &Input::name);
    if (input == inputs.end() ||
        input->bytes.size() != static_cast<std::size_t>(slot.type.bytes())) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("the input '{}' is missing or has another size", slot.name),
                   "",
                   input == inputs.end() ? "" : fmt::format("{} bytes", input->bytes.size()),
                   slot.type.text(),
                   ""};
    }
    bytes.push_back(input->bytes);
  }
  // All weights are in memory.
  (void)runtime::execute(made.program, {made.weights, bytes, {}}, pool_, workspace_);
  Outcome outcome;
  for (std::size_t i = 0; i < made.program.outputs.size(); ++i) {
    auto& to = i < made.outputs ? outcome.outputs : outcome.gradients;
    to.push_back(runtime::output(made.program, workspace_, i));
  }
  return outcome;
}

Result<Network::Planned> Network::planned(const std::string& key, const Program& program) {
  const auto found = bound(key, program);
  if (!found) return found.error();
  const runtime::Program& made = (*found)->program;
  const auto total = static_cast<std::int64_t>(runtime::workspace_bytes(made));
  const auto arena = static_cast<std::int64_t>(made.arena_bytes);
  return Planned{arena, total - arena};
}

Stepper::Stepper(Network& network, std::vector<std::string> trained, const optim::UpdateRule& rule,
                 optim::Settings settings)
    : network_(network), trained_(std::move(trained)), rule_(rule), settings_(std::move(settings)) {
  for (const std::string& name : trained_) {
    const optim::Shape2 shape = as_matrix(network_.shape(name));
    states_.emplace_back(rule_.state_bytes(shape, settings_));
    optim::initialize_state(rule_, states_.back(), shape, settings_);
  }
}

void Stepper::step(std::span<const std::span<const float>> gradients, double learning_rate,
                   double weight_decay, double clip) {
  ++step_;
  const double factor = clip > 0 ? optim::clip_factor(optim::global_norm(gradients), clip) : 1.0;
  for (std::size_t i = 0; i < trained_.size(); ++i) {
    const optim::Shape2 shape = as_matrix(network_.shape(trained_[i]));
    rule_.update({network_.values(trained_[i]), gradients[i], states_[i], shape, step_,
                  learning_rate, shape.is_matrix() ? weight_decay : 0.0, static_cast<float>(factor),
                  settings_});
  }
}

std::int64_t Stepper::state_bytes() const {
  std::int64_t bytes = 0;
  for (const auto& state : states_) bytes += std::ssize(state);
  return bytes;
}

}  // namespace hone::tune

// A graph with parameters of its own, trained outside of any model file: small networks of recipes
// and of tests.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "base/threads.h"
#include "ir/graph.h"
#include "optim/registry.h"
#include "runtime/execute.h"

namespace hone::tune {

class Network {
 public:
  explicit Network(ThreadPool& pool) : pool_(pool) {}

  // A parameter in f32, row-major; one that is there gets the values. kInvalidArgument where they
  // do not fill the shape.
  Status add(const std::string& name, ir::Shape shape, std::vector<float> values);
  // Adds every parameter of a graph that is not there yet: vectors whose name has "norm" are ones,
  // other vectors zeros, matrices normal with the standard deviation `deviation`, drawn from the
  // seed and the parameter's name.
  Status add_all(const ir::Graph& graph, std::uint64_t seed, double deviation = 0.02);
  std::span<float> values(std::string_view name);
  std::span<const std::string> names() const { return names_; }
  const ir::Shape& shape(std::string_view name) const;
  std::int64_t parameters() const;

  struct Input {
    std::string_view name;
    std::span<const std::byte> bytes;
  };
  struct Outcome {
    std::vector<std::span<const float>> outputs;    // of the graph as it was built
    std::vector<std::span<const float>> gradients;  // of the trained names; empty without training
  };
  struct Program {
    std::function<Result<ir::Graph>()> build;  // called when the key is new
    // Changes the graph before the gradients (arithmetic) and after them.
    std::function<Result<ir::Graph>(const ir::Graph&)> before, after;
    std::vector<std::string> trained;  // empty: forward only; the output "loss" is differentiated
    bool reference = false;            // every op by its reference, in double precision
  };
  // Runs the program of that key; it is compiled at its first run. The outcome is valid until the
  // next run.
  Result<Outcome> run(const std::string& key, const Program& program,
                      std::span<const Input> inputs);
  // Bytes that a run of the program takes beside parameters and inputs; nothing is run.
  struct Planned {
    std::int64_t arena = 0;    // values, by their lifetimes
    std::int64_t scratch = 0;  // what kernels and threads have for themselves
  };
  Result<Planned> planned(const std::string& key, const Program& program);
  std::int64_t compiled_programs() const { return compiled_; }

 private:
  struct Parameter {
    ir::Shape shape;
    std::vector<float> values;
    runtime::Weight weight;
  };
  struct Bound {
    runtime::Program program;
    std::vector<const runtime::Weight*> weights;
    std::size_t outputs = 0;  // before those of gradients
  };
  Result<Bound*> bound(const std::string& key, const Program& program);

  ThreadPool& pool_;
  std::map<std::string, std::unique_ptr<Parameter>, std::less<>> parameters_;
  std::vector<std::string> names_;
  std::map<std::string, Bound> programs_;
  runtime::Workspace workspace_;
  std::int64_t compiled_ = 0;
};

// An update rule with the states of a network's tensors.
class Stepper {
 public:
  Stepper(Network& network, std::vector<std::string> trained, const optim::UpdateRule& rule,
          optim::Settings settings);
  // One step against the gradients, which are in the order of the trained names.
  void step(std::span<const std::span<const float>> gradients, double learning_rate,
            double weight_decay, double clip = 0);
  std::int64_t state_bytes() const;
  std::int64_t steps() const { return step_; }

 private:
  Network& network_;
  std::vector<std::string> trained_;
  const optim::UpdateRule& rule_;
  optim::Settings settings_;
  std::vector<std::vector<std::byte>> states_;
  std::int64_t step_ = 0;
};

}  // namespace hone::tune

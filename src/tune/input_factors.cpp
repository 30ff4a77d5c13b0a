// SPDX-License-Identifier: Apache-2.0
#include "tune/input_factors.h"

#include <cmath>
#include <map>

#include "ops/registry.h"
#include "passes/transform/lora.h"

namespace hone::tune {
namespace {

constexpr int kIterations = 6;

// Adds an output for the input of each matmul with an adapter's A, named by it.
Result<ir::Graph> with_inputs(const ir::Graph& graph) {
  ir::Rewriter rewriter(graph, ops::find_op);
  std::map<std::string, ir::ValueId> inputs;
  for (const ir::Operation& operation : graph.operations) {
    rewriter.copy(operation);
    if (!operation.is("matmul")) continue;
    const ir::Operation& weight = graph.producer(operation.operands[1]);
    if (!weight.is("parameter")) continue;
    const std::string name(weight.attributes.text("name"));
    if (name.ends_with(".lora_a")) inputs.emplace(name, operation.operands[0]);
  }
  std::vector<std::pair<std::string, ir::ValueId>> outputs;
  for (const auto& [name, id] : inputs) outputs.emplace_back(name, rewriter.map(id));
  auto result = rewriter.finish();
  if (!result) return result;
  for (const auto& [name, id] : outputs) {
    result->outputs.push_back(id);
    result->output_names.push_back(name);
  }
  return result;
}

// Rows of `basis` (r, K) become orthonormal. What lies in the span of those before, but for
// rounding, becomes zero: the same token before every answer gives the first layer one direction.
void orthonormalize(std::span<float> basis, std::size_t columns) {
  for (std::size_t row = 0; row < basis.size(); row += columns) {
    const std::span<float> each = basis.subspan(row, columns);
    double before = 0;
    for (const float value : each) before += double{value} * double{value};
    for (std::size_t other = 0; other < row; other += columns) {
      double dot = 0;
      for (std::size_t i = 0; i < columns; ++i) dot += double{each[i]} * double{basis[other + i]};
      for (std::size_t i = 0; i < columns; ++i) {
        each[i] -= static_cast<float>(dot) * basis[other + i];
      }
    }
    double squares = 0;
    for (const float value : each) squares += double{value} * double{value};
    const bool vanished = squares <= 1e-9 * before;
    const float scale = vanished ? 0.0F : static_cast<float>(1 / std::sqrt(squares));
    for (float& value : each) value *= scale;
  }
}

// basis <- orthonormal rows of basis XᵀX, some times over. x: (N, K).
void leading_directions(std::span<const float> x, std::size_t columns, std::span<float> basis) {
  std::vector<float> next(basis.size());
  orthonormalize(basis, columns);
  for (int iteration = 0; iteration < kIterations; ++iteration) {
    std::fill(next.begin(), next.end(), 0.0F);
    for (std::size_t row = 0; row < x.size(); row += columns) {
      for (std::size_t r = 0; r < basis.size(); r += columns) {
        float along = 0;
        for (std::size_t i = 0; i < columns; ++i) along += x[row + i] * basis[r + i];
        for (std::size_t i = 0; i < columns; ++i) next[r + i] += along * x[row + i];
      }
    }
    std::ranges::copy(next, basis.begin());
    orthonormalize(basis, columns);
  }
}

}  // namespace

Status set_input_factors(engine::Session& session, const Trained& trained,
                         std::span<const feedback::TokenBatch> batches) {
  if (trained.options.method != "lora") {
    return Error{ErrorCode::kInvalidArgument,
                 "only low-rank adapters take factors from the layers' inputs",
                 "",
                 trained.options.method,
                 "--perturb low-rank",
                 ""};
  }
  feedback::GradientOptions options;
  options.compile = session.options().compile;
  options.forward_only = true;
  std::vector<std::string> names;
  options.adapt = [&](const ir::Graph& graph) -> Result<ir::Graph> {
    auto adapted = trained.adapt_exactly(graph);
    if (adapted) adapted = with_inputs(*adapted);
    if (adapted) {
      names.clear();
      for (const std::string& name : adapted->output_names) {
        if (name.ends_with(".lora_a")) names.push_back(name);
      }
    }
    return adapted;
  };
  feedback::Gradient forward(session, options);
  std::map<std::string, std::size_t> width;
  for (const TrainedTensor& tensor : trained.tensors) {
    width[tensor.name] = static_cast<std::size_t>(tensor.shape.back());
  }
  std::map<std::string, std::vector<float>> inputs;  // (rows, K), of all batches
  for (const feedback::TokenBatch& batch : batches) {
    auto outcome = forward.run(batch);
    if (!outcome) return outcome.error();
    for (std::size_t i = 0; i < names.size() && i < outcome->gradients.size(); ++i) {
      const std::span<const float> all = outcome->gradients[i];
      const std::size_t columns = width.at(names[i]);
      std::vector<float>& kept = inputs[names[i]];
      // Behind the last attention a graph may go on with the wanted rows alone.
      const bool all_tokens = all.size() / columns >= batch.tokens.size();
      for (std::size_t m = 0; m < batch.rows.size(); ++m) {
        const std::size_t row = all_tokens ? static_cast<std::size_t>(batch.rows[m]) : m;
        const auto from = all.subspan(row * columns, columns);
        kept.insert(kept.end(), from.begin(), from.end());
      }
    }
  }
  const int threads = session.pool().size();
  session.pool().run([&](int thread) {
    for (std::size_t i = static_cast<std::size_t>(thread); i < trained.tensors.size();
         i += static_cast<std::size_t>(threads)) {
      const TrainedTensor& tensor = trained.tensors[i];
      const auto found = inputs.find(tensor.name);
      if (found == inputs.end()) continue;
      leading_directions(found->second, static_cast<std::size_t>(tensor.shape[1]), tensor.values);
    }
  });
  return {};
}

}  // namespace hone::tune

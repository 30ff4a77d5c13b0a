// SPDX-License-Identifier: Apache-2.0
#include "passes/transform/lora.h"

#include <fmt/format.h>

#include <set>
#include <utility>
#include <vector>

#include "ops/registry.h"
#include "passes/pass.h"

namespace hone::passes {
namespace {

constexpr std::int64_t kPoolColumns = 32;
// Of the registered pass, which has no options: PEFT's default.
constexpr std::int64_t kDefaultRank = 8;

// The weight that a matmul reads; nullptr where its second operand is computed.
const std::string* weight_name(const ir::Graph& graph, const ir::Operation& operation) {
  if (!operation.is("matmul")) return nullptr;
  const ir::Operation& weight = graph.producer(operation.operands[1]);
  if (!weight.is("parameter")) return nullptr;
  return std::get_if<std::string>(weight.attributes.find("name"));
}

// The f32 rows that a matmul multiplies, also behind `quantize`; -1 where they were fused away.
ir::ValueId dense_input(const ir::Graph& graph, const ir::Operation& operation) {
  const ir::ValueId input = operation.operands[0];
  if (graph.type(input).layout == ir::Layout::kRowMajor) return input;
  const ir::Operation& producer = graph.producer(input);
  return producer.is("quantize") ? producer.operands[0] : -1;
}

std::set<std::string> parameter_names(const ir::Graph& graph) {
  std::set<std::string> names;
  for (const ir::Operation& operation : graph.operations) {
    if (operation.is("parameter")) names.emplace(operation.attributes.text("name"));
  }
  return names;
}

class Adding {
 public:
  Adding(const ir::Graph& graph, const LoraOptions& options)
      : graph_(graph),
        options_(options),
        rewriter_(graph, ops::find_op),
        uses_(graph.use_counts()),
        readers_(graph.values.size(), nullptr),
        late_(graph.values.size(), -1) {
    for (const ir::Operation& operation : graph.operations) {
      for (const ir::ValueId id : operation.operands) readers_[at(id)] = &operation;
    }
  }

  Result<ir::Graph> run() {
    HONE_RETURN_IF_ERROR(check());
    for (const ir::Operation& operation : graph_.operations) {
      const std::string* name = weight_name(graph_, operation);
      const auto rank = name == nullptr ? options_.ranks.end() : options_.ranks.find(*name);
      if (rank != options_.ranks.end()) {
        adapt(operation, *name, rank->second);
      } else if (operation.is("add") && has_late(operation)) {
        add_after(operation);
      } else {
        rewriter_.copy(operation);
      }
    }
    return rewriter_.finish();
  }

 private:
  static std::size_t at(ir::ValueId id) { return static_cast<std::size_t>(id); }

  Status check() const {
    const std::set<std::string> names = parameter_names(graph_);
    std::set<std::string> found;
    const bool alone = options_.members == 1;
    if (options_.members < 1 ||
        (!alone && (options_.form != AdapterForm::kLora || options_.dropout > 0))) {
      return Error{ErrorCode::kInvalidArgument,
                   "a population has one plain adapter a member",
                   "",
                   fmt::format("{} members", options_.members),
                   "low-rank adapters without magnitudes, pooling or dropout",
                   ""};
    }
    for (const ir::Operation& operation : graph_.operations) {
      const std::string* name = weight_name(graph_, operation);
      if (name == nullptr || !options_.ranks.contains(*name)) continue;
      if (dense_input(graph_, operation) < 0) continue;
      found.insert(*name);
      const std::int64_t columns = graph_.type(operation.operands[1]).columns();
      if (options_.form == AdapterForm::kPooled && columns % kPoolColumns != 0) {
        return Error{ErrorCode::kInvalidArgument,
                     fmt::format("the columns of '{}' cannot be pooled", *name),
                     "",
                     fmt::format("{} columns", columns),
                     fmt::format("a multiple of {}", kPoolColumns),
                     "leave it out of the pooled adapter"};
      }
    }
    for (const auto& [name, rank] : options_.ranks) {
      if (!found.contains(name)) {
        return Error{ErrorCode::kNotFound,
                     fmt::format("no matmul of the graph reads a weight '{}'", name),
                     graph_.name,
                     "",
                     "a weight matrix of the model, before passes that fuse",
                     "see the model's names with `hone inspect --tensors`"};
      }
      if (rank < 1) {
        return Error{ErrorCode::kInvalidArgument,
                     fmt::format("the adapter of '{}' has no rank", name),
                     "",
                     fmt::format("{}", rank),
                     "1 or more",
                     ""};
      }
      if (names.contains(lora_a_name(name))) {
        return Error{ErrorCode::kInvalidArgument,
                     fmt::format("'{}' has an adapter already", name),
                     graph_.name,
                     "",
                     "one adapter a weight",
                     ""};
      }
    }
    return {};
  }

  // One parameter a name, however often it is read.
  ir::ValueId parameter(const std::string& name, ir::Shape shape) {
    const auto [known, fresh] = parameters_.try_emplace(name, -1);
    if (fresh) {
      ir::Attributes attributes{{"name", name}};
      if (options_.writable) attributes.set("writable", true);
      known->second = rewriter_.emit_source(ops::find_op("parameter"),
                                            ir::tensor_type(std::move(shape)), attributes);
    }
    return known->second;
  }

  // The single result; -1 where the op's rule refused, which finish() reports.
  ir::ValueId emit(std::string_view op, std::vector<ir::ValueId> operands,
                   ir::Attributes attributes = {}) {
    for (const ir::ValueId id : operands) {
      if (id < 0) return -1;
    }
    const auto made = rewriter_.emit(op, std::move(operands), std::move(attributes));
    return made.size() == 1 ? made[0] : -1;
  }

  // scale * B (A x), the scale on the r values between.
  ir::ValueId branch(const ir::Operation& matmul, const std::string& name, std::int64_t rank) {
    const ir::Type& weight = graph_.type(matmul.operands[1]);
    const bool pooled = options_.form == AdapterForm::kPooled;
    const std::int64_t columns = weight.columns() / (pooled ? kPoolColumns : 1);
    ir::ValueId x = rewriter_.map(dense_input(graph_, matmul));
    if (options_.dropout > 0) x = drop(x);
    if (pooled) x = emit("pool_columns", {x});
    if (options_.members > 1) return population(x, weight, name, rank);
    ir::ValueId low = emit("matmul", {x, parameter(lora_a_name(name), {rank, columns})});
    if (options_.scale != 1) low = emit("scale", {low}, {{"factor", options_.scale}});
    return emit("matmul", {low, parameter(lora_b_name(name), {weight.rows(), rank})});
  }

  // B [e_m (x) A x] for each row's member m: one product for all of them.
  ir::ValueId population(ir::ValueId x, const ir::Type& weight, const std::string& name,
                         std::int64_t rank) {
    const std::int64_t wide = options_.members * rank;
    ir::ValueId low =
        emit("matmul", {x, parameter(population_a_name(name),
                                     {options_.shared_a ? rank : wide, weight.columns()})});
    if (options_.scale != 1) low = emit("scale", {low}, {{"factor", options_.scale}});
    if (low < 0) return -1;
    low = emit("member_columns", {low, members_of(rewriter_.result().type(low).rows())},
               {{"members", options_.members}, {"rank", rank}});
    return emit("matmul", {low, parameter(population_b_name(name), {weight.rows(), wide})});
  }

  // The input that names the members of so many rows: behind the last attention a graph goes on
  // with the wanted rows alone.
  ir::ValueId members_of(std::int64_t rows) {
    const auto [known, fresh] = members_.try_emplace(rows, -1);
    if (fresh) {
      known->second = rewriter_.emit_source(
          ops::find_op("input"), ir::tensor_type({rows}, DType::kI32),
          {{"name", std::string(rows == tokens() ? "members" : "row_members")}});
    }
    return known->second;
  }

  std::int64_t tokens() const {
    for (const ir::Operation& operation : graph_.operations) {
      const bool found = operation.is("input") && operation.attributes.text("name") == "tokens";
      if (found) return graph_.type(operation.results[0]).elements();
    }
    return 0;
  }

  ir::ValueId drop(ir::ValueId x) {
    if (draws_ < 0) {
      draws_ = rewriter_.emit_source(ops::find_op("input"), ir::tensor_type({2}, DType::kI32),
                                     {{"name", std::string("draws")}});
    }
    return emit("dropout", {x, draws_}, {{"part", options_.dropout}, {"stream", streams_++}});
  }

  // What every output of the weight is multiplied by.
  ir::ValueId gain(const ir::Operation& matmul, const std::string& name, std::int64_t rank) {
    const ir::Type& weight = graph_.type(matmul.operands[1]);
    if (options_.fixed_gain) return parameter(lora_gain_name(name), {weight.rows()});
    const ir::ValueId norms = emit(
        "adapted_row_norms",
        {rewriter_.map(matmul.operands[1]), parameter(lora_a_name(name), {rank, weight.columns()}),
         parameter(lora_b_name(name), {weight.rows(), rank})},
        {{"scale", options_.scale}});
    return emit("multiply", {parameter(lora_magnitude_name(name), {weight.rows()}), norms});
  }

  void adapt(const ir::Operation& operation, const std::string& name, std::int64_t rank) {
    rewriter_.copy(operation);
    if (dense_input(graph_, operation) < 0) return;
    const ir::ValueId part = branch(operation, name, rank);
    if (part < 0) return;
    const ir::ValueId product = operation.results[0];
    if (options_.form == AdapterForm::kDora) {
      const ir::ValueId sum = emit("add", {rewriter_.map(product), part});
      const ir::ValueId scaled = emit("multiply", {sum, gain(operation, name, rank)});
      if (scaled >= 0) rewriter_.replace(product, scaled);
      return;
    }
    const ir::Operation* reader = uses_[at(product)] == 1 ? readers_[at(product)] : nullptr;
    const bool to_residual = reader != nullptr && reader->is("add") &&
                             graph_.type(reader->operands[0]) == graph_.type(reader->operands[1]);
    if (to_residual) {
      late_[at(product)] = part;
      return;
    }
    const ir::ValueId sum = emit("add", {rewriter_.map(product), part});
    if (sum >= 0) rewriter_.replace(product, sum);
  }

  bool has_late(const ir::Operation& operation) const {
    return late_[at(operation.operands[0])] >= 0 || late_[at(operation.operands[1])] >= 0;
  }

  // (residual + product) + branch
  void add_after(const ir::Operation& operation) {
    rewriter_.copy(operation);
    ir::ValueId sum = rewriter_.map(operation.results[0]);
    for (const ir::ValueId operand : operation.operands) {
      if (late_[at(operand)] >= 0) sum = emit("add", {sum, late_[at(operand)]});
    }
    if (sum >= 0) rewriter_.replace(operation.results[0], sum);
  }

  const ir::Graph& graph_;
  const LoraOptions& options_;
  ir::Rewriter rewriter_;
  std::vector<std::int32_t> uses_;
  std::vector<const ir::Operation*> readers_;  // the last reader of each value
  std::vector<ir::ValueId> late_;              // old product to the new branch that its reader adds
  std::map<std::string, ir::ValueId, std::less<>> parameters_;
  std::map<std::int64_t, ir::ValueId> members_;  // by their number
  ir::ValueId draws_ = -1;
  std::int64_t streams_ = 0;
};

// Every linear layer that has none yet, but not what turns tokens into rows and back.
Result<ir::Graph> run(const ir::Graph& graph) {
  const std::set<std::string> names = parameter_names(graph);
  LoraOptions options;
  for (const ir::Operation& operation : graph.operations) {
    const std::string* name = weight_name(graph, operation);
    if (name == nullptr || dense_input(graph, operation) < 0) continue;
    const bool outside = *name == "token_embd.weight" || *name == "output.weight" ||
                         name->ends_with(".lora_a") || name->ends_with(".lora_b") ||
                         names.contains(lora_a_name(*name));
    if (!outside) options.ranks.emplace(*name, kDefaultRank);
  }
  return add_lora(graph, options);
}

}  // namespace

std::string lora_a_name(std::string_view weight) { return std::string(weight) + ".lora_a"; }
std::string lora_b_name(std::string_view weight) { return std::string(weight) + ".lora_b"; }
std::string population_a_name(std::string_view weight) { return lora_a_name(weight) + ".members"; }
std::string population_b_name(std::string_view weight) { return lora_b_name(weight) + ".members"; }
std::string lora_magnitude_name(std::string_view weight) { return std::string(weight) + ".lora_m"; }
std::string lora_gain_name(std::string_view weight) { return std::string(weight) + ".lora_gain"; }

Result<ir::Graph> add_lora(const ir::Graph& graph, const LoraOptions& options) {
  return Adding(graph, options).run();
}

const Pass& lora_pass() {
  static const Pass kPass{"lora", "adds an adapter of rank 8 to every linear layer",
                          PassKind::kTransform, 0, run};
  return kPass;
}

}  // namespace hone::passes

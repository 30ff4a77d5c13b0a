// SPDX-License-Identifier: Apache-2.0
#include "passes/transform/scales.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "ops/registry.h"
#include "passes/pass.h"

namespace hone::passes {
namespace {

constexpr std::int64_t kPoolColumns = 32;

// The weight that a matmul reads; empty where its second operand is computed.
std::string_view weight_name(const ir::Graph& graph, const ir::Operation& operation) {
  if (!operation.is("matmul") && !operation.is("matmul_scaled")) return {};
  const ir::Operation& weight = graph.producer(operation.operands[1]);
  return weight.is("parameter") ? weight.attributes.text("name") : std::string_view();
}

class Scaling {
 public:
  Scaling(const ir::Graph& graph, const ScaleOptions& options)
      : graph_(graph), options_(options), rewriter_(graph, ops::find_op) {}

  Result<ir::Graph> run() {
    HONE_RETURN_IF_ERROR(check());
    for (const ir::Operation& operation : graph_.operations) {
      const std::string_view name = weight_name(graph_, operation);
      if (!name.empty() && std::ranges::count(options_.weights, name) > 0) {
        scale(operation, name);
      } else {
        rewriter_.copy(operation);
      }
    }
    return rewriter_.finish();
  }

 private:
  Status check() const {
    std::map<std::string_view, const ir::Operation*> readers;
    for (const ir::Operation& operation : graph_.operations) {
      const std::string_view name = weight_name(graph_, operation);
      if (!name.empty()) readers[name] = &operation;
    }
    for (const std::string& name : options_.weights) {
      const auto reader = readers.find(name);
      if (reader == readers.end()) {
        return Error{ErrorCode::kNotFound,
                     fmt::format("no matmul of the graph reads a weight '{}'", name),
                     graph_.name,
                     "",
                     "a weight matrix of the model, before passes that fuse",
                     "see the model's names with `hone inspect --tensors`"};
      }
      const DType dtype = graph_.type(reader->second->operands[1]).dtype;
      const bool pools =
          options_.view == ScaleView::kTied || dtype_info(dtype).block == kPoolColumns;
      if (is_block_quantized(dtype) && pools && reader->second->is("matmul")) continue;
      return Error{
          ErrorCode::kInvalidArgument,
          fmt::format("'{}' cannot have factors for its scales", name),
          graph_.name,
          reader->second->is("matmul") ? std::string(dtype_name(dtype)) : "it has factors already",
          pools ? "block-quantized weights, once" : "blocks of 32 weights",
          "choose other --modules"};
    }
    return {};
  }

  ir::ValueId parameter(const std::string& name, const ir::Shape& shape, bool writable) {
    const auto [known, fresh] = parameters_.try_emplace(name, -1);
    if (fresh) {
      ir::Attributes attributes{{"name", name}};
      if (writable) attributes.set("writable", true);
      known->second =
          rewriter_.emit_source(ops::find_op("parameter"), ir::tensor_type(shape), attributes);
    }
    return known->second;
  }

  ir::ValueId emit(std::string_view op, std::vector<ir::ValueId> operands) {
    if (std::ranges::count(operands, -1) > 0) return -1;
    const auto made = rewriter_.emit(op, std::move(operands));
    return made.size() == 1 ? made[0] : -1;
  }

  void scale(const ir::Operation& operation, std::string_view name) {
    const ir::Type& weight = graph_.type(operation.operands[1]);
    const ir::Shape shape = {weight.rows(), weight.columns() / dtype_info(weight.dtype).block};
    const ir::ValueId x = rewriter_.map(operation.operands[0]);
    const ir::ValueId w = rewriter_.map(operation.operands[1]);
    const ir::ValueId factors = parameter(scales_name(name), shape, options_.writable);
    ir::ValueId out = -1;
    if (options_.view == ScaleView::kTied) {
      out = emit("matmul_scaled", {x, w, factors});
    } else {
      // The minimum's part of a product: sum over blocks of F m (sum of x), of all that is F's.
      const ir::ValueId minimums = parameter(minimums_name(name), shape, false);
      const ir::ValueId part =
          emit("matmul", {emit("pool_columns", {x}), emit("multiply", {factors, minimums})});
      if (options_.view == ScaleView::kMinimum) {
        rewriter_.copy(operation);
        out = emit("add", {rewriter_.map(operation.results[0]), part});
      } else if (part >= 0) {
        const auto minus = rewriter_.emit("scale", {part}, {{"factor", -1.0}});
        out = emit("add", {emit("matmul_scaled", {x, w, factors}), minus.empty() ? -1 : minus[0]});
      }
    }
    if (out >= 0) rewriter_.replace(operation.results[0], out);
  }

  const ir::Graph& graph_;
  const ScaleOptions& options_;
  ir::Rewriter rewriter_;
  std::map<std::string, ir::ValueId, std::less<>> parameters_;
};

// Every linear layer of blocks, but not what turns tokens into rows and back.
Result<ir::Graph> run(const ir::Graph& graph) {
  std::set<std::string> names;
  for (const ir::Operation& operation : graph.operations) {
    const std::string_view name = weight_name(graph, operation);
    const bool outside = name == "token_embd.weight" || name == "output.weight";
    if (name.empty() || outside || operation.is("matmul_scaled")) continue;
    if (is_block_quantized(graph.type(operation.operands[1]).dtype)) names.emplace(name);
  }
  return add_scales(graph, {{names.begin(), names.end()}, ScaleView::kTied, false});
}

}  // namespace

std::string scales_name(std::string_view weight) { return std::string(weight) + ".scales"; }
std::string minimums_name(std::string_view weight) { return std::string(weight) + ".minimums"; }

Result<ir::Graph> add_scales(const ir::Graph& graph, const ScaleOptions& options) {
  return Scaling(graph, options).run();
}

const Pass& scales_pass() {
  static const Pass kPass{"scales", "puts a factor beside every quantization scale",
                          PassKind::kTransform, 0, run};
  return kPass;
}

}  // namespace hone::passes

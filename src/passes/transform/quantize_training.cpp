// SPDX-License-Identifier: Apache-2.0
#include "passes/transform/quantize_training.h"

#include <fmt/format.h>

#include <bit>
#include <map>
#include <string>
#include <utility>

#include "base/hadamard.h"
#include "ops/grid.h"
#include "ops/registry.h"
#include "passes/pass.h"
#include "passes/transform/products.h"

namespace hone::passes {
namespace {

using ir::ValueId;

class Quantizing {
 public:
  Quantizing(const ir::Graph& graph, const HaloOptions& options)
      : graph_(graph), options_(options), rewriter_(graph, ops::find_op) {}

  Result<ir::Graph> run() {
    for (const ir::Operation& operation : graph_.operations) {
      const Product product = product_of(graph_, operation, options_.least);
      ValueId made = kNothing;
      if (product != Product::kNone) {
        made = replaced(product, rewriter_.map(operation.operands[0]),
                        rewriter_.map(operation.operands[1]));
      } else if (options_.bits == 8 && passes_frozen_weight(operation)) {
        made = through_frozen_weight(rewriter_.map(operation.operands[0]),
                                     rewriter_.map(operation.operands[1]));
      }
      if (made == kNothing) {
        rewriter_.copy(operation);
      } else {
        rewriter_.replace(operation.results[0], made);
      }
    }
    return rewriter_.finish();
  }

 private:
  static constexpr ValueId kNothing = -1;

  ValueId replaced(Product product, ValueId left, ValueId right) {
    const bool columns = options_.level >= 1 && rotates(right);
    const bool back = columns && options_.rotated_backward;
    if (product == Product::kForward) {
      if (!columns) return multiply("nt", left, right);
      const ValueId turned = rotated(left);  // first, so that every compiler makes the same graph
      return multiply("nt", turned, rotated(right));
    }
    if (product == Product::kWeight) {
      const ValueId made = multiply("tn", left, back ? rotated(right) : right);
      return back ? hadamard(made, false, true) : made;
    }
    const bool tokens = options_.level == 2;
    const ValueId turned = tokens ? hadamard(left, true, false) : left;
    ValueId made = multiply("nn", turned, back ? rotated(right) : right);
    if (tokens) made = hadamard(made, true, true);
    return back ? hadamard(made, false, true) : made;
  }

  // A gradient that passes a weight in blocks, which is not trained.
  bool passes_frozen_weight(const ir::Operation& operation) const {
    if (!operation.is("matmul_back")) return false;
    const ir::Type& weight = graph_.type(operation.operands[1]);
    return weight.dtype != DType::kF32 && weight.rows() >= options_.least &&
           weight.rows() <= ops::kMostCodesDepth && weight.columns() >= options_.least &&
           graph_.producer(operation.operands[1]).is("parameter");
  }

  // T^T [Q(T dy) Q(W)], W's codes by column, made in passing.
  ValueId through_frozen_weight(ValueId dy, ValueId weight) {
    const bool tokens = options_.level == 2;
    const auto rows = codes(tokens ? hadamard(dy, true, false) : dy, "row");
    const auto columns = rewriter_.emit("weight_codes", {weight}, {});
    if (columns.size() != 2) return kNothing;
    const ValueId made = emit("int8_product", {rows.first, rows.second, columns[0], columns[1]},
                              {{"form", std::string("nt")}});
    return tokens ? hadamard(made, true, true) : made;
  }

  // Whether there is a block to rotate in.
  bool rotates(ValueId id) const {
    return hadamard_block(rewriter_.result().type(id).columns()) > 1;
  }

  ValueId emit(std::string_view op, std::vector<ValueId> operands, ir::Attributes attributes) {
    const auto made = rewriter_.emit(op, std::move(operands), std::move(attributes));
    return made.empty() ? kNothing : made[0];
  }

  ValueId hadamard(ValueId id, bool tokens, bool transpose) {
    ir::Attributes attributes;
    if (tokens) {
      attributes.set("axis", std::string("tokens"));
      attributes.set("block", options_.token_block);
    }
    if (transpose) attributes.set("transpose", true);
    return emit("hadamard", {id}, std::move(attributes));
  }

  // x H, made once for all that read it.
  ValueId rotated(ValueId id) {
    const auto [found, fresh] = rotated_.emplace(id, kNothing);
    if (fresh) found->second = hadamard(id, false, false);
    return found->second;
  }

  // Codes and scales, made once for all that read them.
  std::pair<ValueId, ValueId> codes(ValueId id, const char* row_or_column) {
    const std::string each = options_.scales == ScaleOf::kRow ? row_or_column : "tensor";
    const auto [found, fresh] = codes_.emplace(std::pair(id, each), std::pair(kNothing, kNothing));
    if (fresh) {
      ir::Attributes attributes{{"granularity", each}};
      if (options_.bits != 8) attributes.set("bits", options_.bits);
      const auto made = rewriter_.emit("int8_codes", {id}, std::move(attributes));
      if (made.size() == 2) found->second = {made[0], made[1]};
    }
    return found->second;
  }

  ValueId multiply(std::string_view form, ValueId left, ValueId right) {
    if (options_.bits == 0) {
      const char* op = form == "nt" ? "matmul" : form == "nn" ? "matmul_back" : "matmul_outer";
      return emit(op, {left, right}, {});
    }
    const auto a = codes(left, form == "tn" ? "column" : "row");
    const auto b = codes(right, form == "nt" ? "row" : "column");
    return emit("int8_product", {a.first, a.second, b.first, b.second},
                {{"form", std::string(form)}});
  }

  const ir::Graph& graph_;
  const HaloOptions& options_;
  ir::Rewriter rewriter_;
  std::map<ValueId, ValueId> rotated_;  // new ids
  std::map<std::pair<ValueId, std::string>, std::pair<ValueId, ValueId>> codes_;
};

Result<ir::Graph> run(const ir::Graph& graph) { return quantize_training(graph, {}); }

}  // namespace

Result<ir::Graph> quantize_training(const ir::Graph& graph, const HaloOptions& options) {
  const bool fits = options.level >= 0 && options.level <= 2 &&
                    (options.bits == 0 || (options.bits >= 2 && options.bits <= 8)) &&
                    options.token_block > 0 &&
                    std::has_single_bit(static_cast<std::uint64_t>(options.token_block));
  if (!fits) {
    return Error{ErrorCode::kInvalidArgument,
                 "int8 training cannot be done like this",
                 "pass 'quantize_training'",
                 fmt::format("level {}, {} bits, blocks of {} tokens", options.level, options.bits,
                             options.token_block),
                 "a level from 0 to 2, 0 or 2 to 8 bits, blocks of a power of two",
                 ""};
  }
  return Quantizing(graph, options).run();
}

const Pass& quantize_training_pass() {
  static const Pass kPass{
      "quantize_training",
      "linear layers on int8 codes, forward and backward, rotated by Hadamard matrices (HALO 2)",
      PassKind::kTransform, 0, run};
  return kPass;
}

}  // namespace hone::passes

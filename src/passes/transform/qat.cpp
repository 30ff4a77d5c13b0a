// SPDX-License-Identifier: Apache-2.0
#include "passes/transform/qat.h"

#include <map>

#include "base/hadamard.h"
#include "ops/registry.h"
#include "passes/pass.h"
#include "passes/transform/products.h"

namespace hone::passes {
namespace {

Result<ir::Graph> run(const ir::Graph& graph) { return add_qat(graph, {}); }

}  // namespace

Result<ir::Graph> add_qat(const ir::Graph& graph, const QatOptions& options) {
  ir::Rewriter rewriter(graph, ops::find_op);
  std::map<ir::ValueId, ir::ValueId> rounded;  // old to new, once for all readers
  const auto on_grid = [&](ir::ValueId old_id, std::int64_t bits) {
    const auto [found, fresh] = rounded.emplace(old_id, rewriter.map(old_id));
    if (!fresh) return found->second;
    const auto change = [&](std::string_view op, ir::Attributes attributes) {
      const auto made = rewriter.emit(op, {found->second}, std::move(attributes));
      if (made.size() == 1) found->second = made[0];
    };
    if (options.rotate && hadamard_block(graph.type(old_id).columns()) > 1) change("hadamard", {});
    if (bits != 0) change("fake_quantize", {{"bits", bits}, {"granularity", options.granularity}});
    return found->second;
  };
  for (const ir::Operation& operation : graph.operations) {
    if (product_of(graph, operation, options.least) != Product::kForward) {
      rewriter.copy(operation);
      continue;
    }
    const ir::ValueId x = on_grid(operation.operands[0], options.activation_bits);
    const ir::ValueId weight = on_grid(operation.operands[1], options.weight_bits);
    const auto made = rewriter.emit("matmul", {x, weight});
    if (made.size() == 1) rewriter.replace(operation.results[0], made[0]);
  }
  auto result = rewriter.finish();
  if (!result) return result.error().in("pass 'qat'");
  return result;
}

const Pass& qat_pass() {
  static const Pass kPass{"qat",
                          "linear layers with weights of 4 bits and inputs of 8, straight through",
                          PassKind::kTransform, 0, run};
  return kPass;
}

}  // namespace hone::passes

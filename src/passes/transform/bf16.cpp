// Products of numbers rounded to bf16, forward and backward, with sums in f32: what a processor
// with bf16 arithmetic computes, and on such a one twice as fast as f32.
// SPDX-License-Identifier: Apache-2.0
#include <string>

#include "ops/registry.h"
#include "passes/pass.h"

namespace hone::passes {
namespace {

// Products of f32 rows, with weights of any type, get the attribute `rounding`; their kernels round
// both operands while they pack them (kernels/gemm.h). Those whose rows are int8 already (pass
// `integer`) stay. Run it behind add_gradients and before the passes that fuse, which leave marked
// products alone. Error of one product: 2^-9 of each operand.
Result<ir::Graph> run(const ir::Graph& graph) {
  ir::Rewriter rewriter(graph, ops::find_op);
  for (const ir::Operation& operation : graph.operations) {
    const bool product = operation.is("matmul") || operation.is("matmul_back") ||
                         operation.is("matmul_outer") || operation.is("output_loss");
    if (!product || graph.type(operation.operands[0]).layout != ir::Layout::kRowMajor) {
      rewriter.copy(operation);
      continue;
    }
    ir::Attributes attributes = operation.attributes;
    attributes.set("rounding", std::string("bf16"));
    const auto made =
        rewriter.emit(operation.op->name, rewriter.map(operation.operands), std::move(attributes));
    for (std::size_t i = 0; i < made.size(); ++i) rewriter.replace(operation.results[i], made[i]);
  }
  return rewriter.finish();
}

}  // namespace

const Pass& bf16_pass() {
  static const Pass kPass{"bf16", "rounds what products of f32 rows multiply to bf16",
                          PassKind::kTransform, 0, run};
  return kPass;
}

}  // namespace hone::passes

// The keys and values of one layer: state that lives longer than a run.
// SPDX-License-Identifier: Apache-2.0
#include "ops/registry.h"
#include "ops/support.h"

namespace hone::ops {
namespace {

TypesResult infer(Types operands, const Attributes&) {
  return ir::type_error("cache", "no inference: a source carries its type", operands);
}

}  // namespace

const OpDescriptor& cache_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "cache";
    op.summary = "() -> state: the pages of layer `layer`";
    op.infer = infer;
    op.source = true;
    return op;
  }();
  return kOp;
}

}  // namespace hone::ops

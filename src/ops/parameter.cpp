// A weight by name; its bytes live in a mapped file or in a packed copy.
// SPDX-License-Identifier: Apache-2.0
#include "ops/registry.h"
#include "ops/support.h"

namespace hone::ops {
namespace {

TypesResult infer(Types operands, const Attributes&) {
  return ir::type_error("parameter", "no inference: a source carries its type", operands);
}

}  // namespace

const OpDescriptor& parameter_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "parameter";
    op.summary = "() -> (R, C): the weight whose name is the attribute `name`";
    op.infer = infer;
    op.source = true;
    return op;
  }();
  return kOp;
}

}  // namespace hone::ops

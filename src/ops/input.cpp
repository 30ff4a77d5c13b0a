// A value that the caller gives at each run: tokens, positions, tables.
// SPDX-License-Identifier: Apache-2.0
#include "ops/registry.h"
#include "ops/support.h"

namespace hone::ops {
namespace {

TypesResult infer(Types operands, const Attributes&) {
  return ir::type_error("input", "no inference: a source carries its type", operands);
}

}  // namespace

const OpDescriptor& input_op() {
  static const OpDescriptor kOp = [] {
    OpDescriptor op;
    op.name = "input";
    op.summary = "() -> any: the value that the caller gives under the attribute `name`";
    op.infer = infer;
    op.source = true;
    return op;
  }();
  return kOp;
}

}  // namespace hone::ops

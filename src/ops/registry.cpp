// SPDX-License-Identifier: Apache-2.0
#include "ops/registry.h"

#include <array>

namespace hone::ops {

std::span<const ir::OpDescriptor* const> all_ops() {
  static const std::array kOps = {
#define HONE_OP(name) &name##_op(),
#include "ops/list.inc"
#undef HONE_OP
  };
  return kOps;
}

const ir::OpDescriptor* find_op(std::string_view name) {
  for (const ir::OpDescriptor* op : all_ops()) {
    if (op->name == name) return op;
  }
  return nullptr;
}

}  // namespace hone::ops

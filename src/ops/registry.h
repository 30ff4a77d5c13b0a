// All ops of hone: expanded from ops/list.inc.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string_view>

#include "ir/op.h"

namespace hone::ops {

const ir::OpDescriptor* find_op(std::string_view name);
std::span<const ir::OpDescriptor* const> all_ops();

#define HONE_OP(name) const ir::OpDescriptor& name##_op();
#include "ops/list.inc"
#undef HONE_OP

}  // namespace hone::ops

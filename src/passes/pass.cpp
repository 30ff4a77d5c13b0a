// SPDX-License-Identifier: Apache-2.0
#include "passes/pass.h"

#include <array>

namespace hone::passes {

std::span<const Pass* const> all_passes() {
  static const std::array kPasses = {
#define HONE_PASS(name) &name##_pass(),
#include "passes/rewrite/list.inc"
#include "passes/transform/list.inc"
#undef HONE_PASS
  };
  return kPasses;
}

const Pass* find_pass(std::string_view name) {
  for (const Pass* pass : all_passes()) {
    if (pass->name == name) return pass;
  }
  return nullptr;
}

}  // namespace hone::passes

// SPDX-License-Identifier: Apache-2.0
#include "optim/rule.h"

#include <algorithm>

namespace hone::optim {

void initialize_state(const UpdateRule& rule, std::span<std::byte> state, Shape2 shape,
                      const Settings& settings) {
  std::fill(state.begin(), state.end(), std::byte{0});
  if (rule.initialize != nullptr) rule.initialize(state, shape, settings);
}

StateRange state_range(const UpdateRule& rule, Shape2 shape, const Settings& settings,
                       std::int64_t begin, std::int64_t end) {
  const std::size_t granule_bytes = rule.state_bytes({1, rule.granule}, settings);
  const auto first = static_cast<std::size_t>(begin / rule.granule);
  const std::int64_t to = std::min(end, shape.elements());
  const auto last = static_cast<std::size_t>((to + rule.granule - 1) / rule.granule);
  return {first * granule_bytes, (last - first) * granule_bytes};
}

std::size_t scratch_bytes(const UpdateRule& rule, Shape2 shape, const Settings& settings) {
  return rule.scratch_bytes == nullptr ? 0 : rule.scratch_bytes(shape, settings);
}

}  // namespace hone::optim

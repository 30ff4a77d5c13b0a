// The state of an update rule as floats, and what the kernels' tasks share.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/update.h"
#include "optim/rule.h"

namespace hone::optim {

// Elements rounded up to whole granules.
constexpr std::int64_t padded(std::int64_t elements, std::int64_t granule) {
  return (elements + granule - 1) / granule * granule;
}

inline std::span<float> as_floats(std::span<std::byte> bytes) {
  return {reinterpret_cast<float*>(bytes.data()), bytes.size() / sizeof(float)};
}

inline constexpr std::size_t float_bytes(std::int64_t count) {
  return static_cast<std::size_t>(count) * sizeof(float);
}

// Takes a state apart from its front.
class StateParts {
 public:
  explicit StateParts(std::span<std::byte> state) : rest_(state) {}
  std::span<float> floats(std::int64_t count) {
    const std::span<std::byte> part = rest_.first(float_bytes(count));
    rest_ = rest_.subspan(part.size());
    return as_floats(part);
  }
  // How many steps this state has seen; first in a state, 8 bytes.
  std::uint64_t& counter() {
    auto* at = reinterpret_cast<std::uint64_t*>(rest_.data());
    rest_ = rest_.subspan(sizeof(std::uint64_t));
    return *at;
  }

 private:
  std::span<std::byte> rest_;
};

// The part of a kernel's task that every rule has, with decoupled weight decay.
inline kernels::UpdateRun run_of(const UpdateTask& task) {
  return {task.weights, task.gradient, task.gradient_scale, static_cast<float>(task.learning_rate),
          static_cast<float>(1.0 - task.learning_rate * task.weight_decay)};
}

}  // namespace hone::optim

// The memory plan: where in one arena every value lives. A pure function of the lifetimes.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace hone::runtime {

// A value is written in step `first` and last read in step `last`, both included.
struct Lifetime {
  std::int32_t first = 0;
  std::int32_t last = 0;
  std::size_t bytes = 0;
};

struct MemoryPlan {
  std::vector<std::size_t> offsets;  // one a lifetime, in bytes, multiples of kPlanAlignment
  std::size_t total = 0;             // bytes of the arena
};

// Vectors of 64 bytes load fastest from lines of their own.
inline constexpr std::size_t kPlanAlignment = 64;

// Largest values first, each at the lowest place that is free during its whole life (the greedy by
// size of Pisarchyk & Lee, arXiv 2001.03288, section 4). Values that live at the same time never
// overlap.
MemoryPlan plan_memory(std::span<const Lifetime> lifetimes);

// The largest sum of bytes that live at one moment: no plan can need less.
std::size_t lower_bound_bytes(std::span<const Lifetime> lifetimes);

}  // namespace hone::runtime

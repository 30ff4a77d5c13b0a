// SPDX-License-Identifier: Apache-2.0
#include "runtime/plan.h"

#include <algorithm>
#include <numeric>

namespace hone::runtime {
namespace {

std::size_t rounded(std::size_t bytes) {
  return (bytes + kPlanAlignment - 1) / kPlanAlignment * kPlanAlignment;
}

}  // namespace

MemoryPlan plan_memory(std::span<const Lifetime> lifetimes) {
  MemoryPlan plan;
  plan.offsets.assign(lifetimes.size(), 0);
  std::vector<std::size_t> order(lifetimes.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return lifetimes[a].bytes > lifetimes[b].bytes;
  });
  std::vector<std::size_t> placed;  // sorted by offset
  for (const std::size_t index : order) {
    const Lifetime& life = lifetimes[index];
    std::size_t offset = 0;
    for (const std::size_t other : placed) {
      if (lifetimes[other].last < life.first || life.last < lifetimes[other].first) continue;
      if (offset + rounded(life.bytes) <= plan.offsets[other]) break;  // fits before it
      offset = std::max(offset, plan.offsets[other] + rounded(lifetimes[other].bytes));
    }
    plan.offsets[index] = offset;
    plan.total = std::max(plan.total, offset + rounded(life.bytes));
    const auto at = std::upper_bound(
        placed.begin(), placed.end(), offset,
        [&](std::size_t value, std::size_t other) { return value < plan.offsets[other]; });
    placed.insert(at, index);
  }
  return plan;
}

std::size_t lower_bound_bytes(std::span<const Lifetime> lifetimes) {
  std::size_t largest = 0;
  for (const Lifetime& moment : lifetimes) {
    std::size_t sum = 0;
    for (const Lifetime& life : lifetimes) {
      if (life.first <= moment.first && moment.first <= life.last) sum += rounded(life.bytes);
    }
    largest = std::max(largest, sum);
  }
  return largest;
}

}  // namespace hone::runtime

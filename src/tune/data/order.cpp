// The order in which an epoch visits the examples.
// SPDX-License-Identifier: Apache-2.0
#include <numeric>
#include <utility>

#include "base/random.h"
#include "tune/data/dataset.h"

namespace hone::tune {
namespace {

// Tells this stream of a seed from those that other parts of a run draw from ("ordr").
constexpr std::uint64_t kOrderStream = std::uint64_t{0x6F726472} << 32;

}  // namespace

std::vector<std::size_t> epoch_order(std::size_t examples, std::uint64_t seed, std::int64_t epoch) {
  std::vector<std::size_t> order(examples);
  std::iota(order.begin(), order.end(), std::size_t{0});
  Random random(seed, kOrderStream ^ static_cast<std::uint64_t>(epoch));
  // Fisher and Yates, from the end. A draw has 32 bits, so more than 2^32 examples, which no memory
  // holds, would not be shuffled evenly.
  for (std::size_t left = examples; left > 1; --left) {
    std::swap(order[left - 1], order[random.below(static_cast<std::uint32_t>(left))]);
  }
  return order;
}

}  // namespace hone::tune

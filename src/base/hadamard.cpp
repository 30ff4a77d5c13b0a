// SPDX-License-Identifier: Apache-2.0
#include "base/hadamard.h"

#include <algorithm>
#include <array>
#include <bit>

namespace hone {
namespace {

template <int kCore>
consteval auto paley() {
  std::array<std::array<std::int8_t, kCore>, kCore> signs{};
  for (int row = 0; row < kCore; ++row) {
    for (int column = 0; column < kCore; ++column) {
      signs[static_cast<std::size_t>(row)][static_cast<std::size_t>(column)] =
          static_cast<std::int8_t>(paley_sign(kCore, row, column));
    }
  }
  return signs;
}

constexpr auto kTwelve = paley<12>();
constexpr auto kTwenty = paley<20>();

}  // namespace

int hadamard_core(std::int64_t size) {
  for (const int core : {1, 12, 20}) {
    if (size > 0 && size % core == 0 &&
        std::has_single_bit(static_cast<std::uint64_t>(size / core))) {
      return core;
    }
  }
  return 0;
}

std::int64_t hadamard_block(std::int64_t columns) {
  std::int64_t best = 1;
  for (const std::int64_t core : {1, 12, 20}) {
    for (std::int64_t size = core; size <= columns; size *= 2) {
      if (columns % size == 0 && size > best) best = size;
    }
  }
  return best;
}

std::int64_t hadamard_token_block(std::int64_t first, std::int64_t tokens, std::int64_t most) {
  const auto left = static_cast<std::uint64_t>(tokens - first);
  return std::min(static_cast<std::int64_t>(std::bit_floor(left)), most);
}

int hadamard_element(std::int64_t size, std::int64_t row, std::int64_t column) {
  const int core = std::max(1, hadamard_core(size));
  const std::int64_t inner = std::max<std::int64_t>(1, size / core);
  const auto outer_row = static_cast<std::size_t>(row / inner);
  const auto outer_column = static_cast<std::size_t>(column / inner);
  const int sign = core == 12   ? kTwelve[outer_row][outer_column]
                   : core == 20 ? kTwenty[outer_row][outer_column]
                                : 1;
  const auto both = static_cast<std::uint64_t>((row % inner) & (column % inner));
  return std::popcount(both) % 2 == 0 ? sign : -sign;
}

}  // namespace hone

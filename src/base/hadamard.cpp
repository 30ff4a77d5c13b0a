// SPDX-License-Identifier: Apache-2.0
#include "base/hadamard.h"

#include <algorithm>
#include <array>
#include <bit>

namespace hone {
namespace {

template <int kCore>
constexpr std::array<std::int8_t, kCore * kCore> paley() {
  constexpr int kPrime = kCore - 1;
  // The quadratic character: whether a number is a square modulo the prime.
  const auto is_square = [](int difference) {
    for (int root = 1; root < kPrime; ++root) {
      if (root * root % kPrime == difference) return true;
    }
    return false;
  };
  std::array<std::int8_t, kCore * kCore> signs{};
  for (int row = 0; row < kCore; ++row) {
    for (int column = 0; column < kCore; ++column) {
      const bool plus =
          row == column || row == 0 || (column != 0 && is_square((row - column + kPrime) % kPrime));
      signs[static_cast<std::size_t>(row) * kCore + static_cast<std::size_t>(column)] =
          plus ? 1 : -1;
    }
  }
  return signs;
}

constexpr std::array<std::int8_t, 1> kOne = {1};
constexpr auto kTwelve = paley<12>();
constexpr auto kTwenty = paley<20>();

}  // namespace

std::span<const std::int8_t> hadamard_signs(int core) {
  if (core == 12) return kTwelve;
  if (core == 20) return kTwenty;
  return kOne;
}

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
  const int core = hadamard_core(size);
  const std::int64_t inner = std::max<std::int64_t>(1, size / core);
  const int sign =
      hadamard_signs(core)[static_cast<std::size_t>(row / inner * core + column / inner)];
  const auto both = static_cast<std::uint64_t>((row % inner) & (column % inner));
  return std::popcount(both) % 2 == 0 ? sign : -sign;
}

}  // namespace hone
